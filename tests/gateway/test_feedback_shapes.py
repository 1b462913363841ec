"""Clients of Langfuse, MLflow and Phoenix rate here as they rate there, and are answered as they expect."""

from base64 import b64encode
from typing import Any, NamedTuple

import httpx
import pytest

from feedback.events import Rating, RequestFinished, new_id
from feedback.outbox import OutboxError
from gateway.recorder import Recorder
from gateway.telemetry import call_spans
from tests.gateway.conftest import AGENT, QUESTION, World, until
from tests.gateway.fake_vllm import BASE

SCORES, INGESTION, PROJECTS = "/api/public/scores", "/api/public/ingestion", "/api/public/projects"


class Answered(NamedTuple):
    """A request as its client knows it."""

    request_id: str
    trace_id: str
    span_id: str
    episode_id: str


async def _ask(world: World, model: str = AGENT, **headers: str) -> Answered:
    response = await world.http().post(
        "/v1/chat/completions", json={"model": model, "messages": QUESTION}, headers=headers
    )
    _, trace_id, span_id, _ = response.headers["traceparent"].split("-")
    return Answered(response.json()["id"], trace_id, span_id, response.headers["x-episode-id"])


async def _said(world: World, count: int = 1) -> list[Rating]:
    """All ratings that stand, oldest first, when there are so many."""
    async with world.store() as store:
        await until(lambda: len(list(store.current_ratings(tenant="default"))) == count)
        return list(store.current_ratings(tenant="default"))


def _basic(world: World, who: str = "ann") -> httpx.AsyncClient:
    client = world.http(None)
    credentials = b64encode(f"pk-lf-whatever:{world.keys[who]}".encode()).decode()
    client.headers["authorization"] = f"Basic {credentials}"
    return client


async def test_langfuse_a_score_is_a_rating_of_the_last_request_of_its_trace(live: World) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    await _ask(live, traceparent=parent)
    last = await _ask(live, traceparent=parent)
    await live.recorded(last.request_id)
    body = {
        "id": "score-1",
        "traceId": last.trace_id,
        "name": "correct",
        "value": 1,
        "dataType": "BOOLEAN",
        "comment": "as in the report",
        "environment": "production",
        "metadata": {"team": "claims"},
    }
    response = await _basic(live).post(SCORES, json=body)
    assert (response.status_code, response.json()) == (200, {"id": "score-1"})
    (rating,) = await _said(live)
    assert (rating.request_id, rating.value, rating.rater) == (last.request_id, True, "ann")
    assert (rating.comment, rating.source, rating.client_id) == ("as in the report", "langfuse", "score-1")
    assert (rating.tags["environment"], rating.tags["metadata"]) == ("production", '{"team": "claims"}')


async def test_langfuse_the_same_id_again_replaces_the_score_and_deletes_it(live: World) -> None:
    asked = await _ask(live)
    client = _basic(live)
    body = {"id": "s1", "traceId": asked.request_id, "name": "correct", "value": 1}
    for value in (1, 0):
        assert (await client.post(SCORES, json={**body, "value": value})).status_code == 200

    async def stands() -> bool:
        return [rating.value for rating in await _said(live)] == [False]

    await until(stands)
    assert (await client.delete(f"{SCORES}/s1")).status_code == 202
    await _said(live, 0)
    for who, name in (("ann", "s2"), ("bob", "s1")):
        refused = await _basic(live, who).delete(f"{SCORES}/{name}")
        assert (refused.status_code, refused.json()["error"]) == (404, "feedback_not_found")
    own_id = (await client.post(SCORES, json={**body, "id": None})).json()["id"]
    await _said(live, 1)
    assert (await client.delete(f"{SCORES}/{own_id}")).status_code == 202
    await _said(live, 0)


async def test_langfuse_a_session_is_an_episode_and_an_observation_a_call(live: World) -> None:
    asked = await _ask(live)
    await live.recorded(asked.request_id)
    event = await live.recorded(asked.request_id)
    scores = [
        {"sessionId": asked.episode_id, "name": "resolved", "value": "true"},
        {"traceId": asked.trace_id, "observationId": asked.span_id, "name": "correct", "value": 0},
        {"traceId": asked.trace_id, "observationId": call_spans(event)[1], "name": "useful", "value": True},
    ]
    for score in scores:
        response = await _basic(live).post(SCORES, json=score)
        assert response.status_code == 200, response.text
    found = {(rating.name, rating.request_id, rating.call, rating.value) for rating in await _said(live, 3)}
    assert found == {
        ("resolved", None, None, True),
        ("correct", asked.request_id, None, False),
        ("useful", asked.request_id, 1, True),
    }


async def test_langfuse_a_correction_is_one(live: World) -> None:
    asked = await _ask(live)
    body = {"traceId": asked.request_id, "name": "output", "value": "SELECT 1", "dataType": "CORRECTION"}
    assert (await _basic(live).post(SCORES, json=body)).status_code == 200
    (rating,) = await _said(live)
    assert (rating.name, rating.value, rating.correction) == ("correct", False, {"sql": "SELECT 1"})


async def test_a_correction_is_an_object_of_its_own_that_a_score_of_wrong_leaves_and_of_right_replaces(
    live: World,
) -> None:
    asked = await _ask(live)
    score = {"traceId": asked.request_id, "name": "correct"}
    correction = {**score, "value": "SELECT 1", "dataType": "CORRECTION"}
    together = await _basic(live).post(SCORES, json=[correction, {**score, "value": 0}])
    assert together.status_code == 202
    (rating,) = await _said(live)
    assert (rating.value, rating.correction) == (False, {"sql": "SELECT 1"})
    wrong = await _basic(live).post(SCORES, json={**score, "value": 0, "comment": "as I said"})
    assert wrong.status_code == 200

    async def last() -> Rating:
        return (await _said(live))[0]

    async def landed() -> bool:
        return (await last()).comment == "as I said"

    await until(landed)
    assert (await last()).correction == {"sql": "SELECT 1"}
    assert (await _basic(live).post(SCORES, json={**score, "value": 1})).status_code == 200

    async def right() -> bool:
        return (await last()).value is True

    await until(right)
    assert (await last()).correction is None


async def test_langfuse_a_key_is_told_its_tenant_as_its_one_project(live: World) -> None:
    response = await _basic(live).get(PROJECTS)
    tenant = {"id": "default", "name": "default"}
    assert (response.status_code, response.json()) == (
        200,
        {"data": [{**tenant, "organization": tenant, "metadata": {}}]},
    )
    refused = await live.http(None).get(
        PROJECTS, headers={"authorization": "Basic " + b64encode(b"pk:x").decode()}
    )
    assert (refused.status_code, set(refused.json()) >= {"message", "error"}) == (401, True)


async def test_langfuse_lists_and_events_are_taken_one_by_one(live: World) -> None:
    asked = await _ask(live)
    good = {"traceId": asked.request_id, "name": "correct", "value": 1.0, "timestamp": "2026-01-01T00:00:00Z"}
    bad = {**good, "name": "beauty"}
    client = _basic(live)
    whole = await client.post(SCORES, json=[good, good])
    assert (whole.status_code, whole.json()) == (202, {"message": "Accepted"})
    part = await client.post(SCORES, json=[good, bad, 3])
    assert (part.status_code, part.json()["accepted"], part.json()["rejected"]) == (207, 1, 2)
    assert "Declared: correct" in part.json()["errors"][0]["message"]
    events = [
        {"id": "1", "type": "score-create", "timestamp": "2026-01-01T00:00:00Z", "body": good},
        {"id": "2", "type": "score-create", "timestamp": "2026-01-01T00:00:00Z", "body": bad},
        {"id": "3", "type": "trace-create", "timestamp": "2026-01-01T00:00:00Z", "body": {"id": "t"}},
        "rubbish",
    ]
    batch = await client.post(INGESTION, json={"batch": events, "metadata": {"sdk_name": "python"}})
    assert batch.status_code == 207
    assert batch.json()["successes"] == [{"id": "1", "status": 201}]
    assert [(error["id"], error["status"]) for error in batch.json()["errors"]] == [
        ("2", 400),
        ("3", 400),
        ("", 400),
    ]
    many = await client.post(SCORES, json=[good] * 501)
    assert (many.status_code, many.json()["error"]) == (400, "array_above_max_length")


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"traceId": "f" * 32}, 404, "no request of the trace"),
    ({"observationId": "f" * 16}, 404, "no request with the span"),
    ({"traceId": None, "sessionId": "nowhere"}, 404, "no episode"),
    ({"sessionId": "both"}, 400, "either traceId or sessionId"),
    ({"value": 2}, 400, "true or false"),
    ({"datasetRunId": "r"}, 400, "no runs"),
    ({"colour": "red"}, 400, "Supported: name, value, id, traceId"),
    ({"dataType": "CORRECTION"}, 400, "a text"),
    ({"dataType": "CORRECTION", "value": "x" * 20_001}, 400, "at most 20000 characters"),
    ({"traceId": new_id("chatcmpl-"), "dataType": "CORRECTION", "value": "x" * 20_001}, 400, "20000 char"),
]


async def test_langfuse_refusals_have_a_message_and_an_error(live: World) -> None:
    asked = await _ask(live)
    for change, status, words in REFUSED:
        body = {"traceId": asked.trace_id, "name": "correct", "value": 1, **change}
        response = await _basic(live).post(SCORES, json=body)
        assert response.status_code == status, response.text
        assert set(response.json()) == {"message", "error"} and words in response.json()["message"]


async def test_langfuse_a_list_that_the_disk_did_not_take_is_refused_whole_so_that_its_client_sends_it_again(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a list that was taken in part (207), it sends nothing again."""
    asked = await _ask(live)
    monkeypatch.setattr(Recorder, "rating", _full)
    score = {"traceId": asked.request_id, "name": "correct", "value": 1}
    response = await _basic(live).post(SCORES, json=[{**score, "name": "beauty"}, score])
    assert (response.status_code, response.json()["error"]) == (503, "storage_full")


async def _full(*_: object) -> None:
    raise OutboxError("disk full")


@pytest.mark.parametrize("authorization", ["", "Basic", "Basic %%%", "Basic cGs6Zncteg==", "Bearer fw-z"])
async def test_langfuse_a_key_is_asked_for_in_its_own_shape(live: World, authorization: str) -> None:
    client = live.http(None)
    client.headers["authorization"] = authorization
    response = await client.post(SCORES, json={})
    assert (response.status_code, response.json()["error"]) == (401, "invalid_api_key")


def _assessments(trace: str) -> str:
    return f"/api/3.0/mlflow/traces/{trace}/assessments"


def _assessment(**fields: Any) -> dict[str, Any]:
    source = {"source_type": "HUMAN", "source_id": "bea@example.com"}
    return {"assessment": {"assessment_name": "correct", "source": source, **fields}}


async def test_mlflow_feedback_is_a_rating_by_its_source(live: World) -> None:
    asked = await _ask(live)
    trace = f"tr-{asked.trace_id}"
    body = _assessment(
        trace_id=trace,
        feedback={"value": False},
        rationale="not so",
        metadata={"create_time": "ours"},
        create_time="2026-01-01T00:00:00Z",
        last_update_time="2026-01-01T00:00:00Z",
        valid=True,
    )
    response = await live.http().post(_assessments(trace), json=body)
    assert response.status_code == 200, response.text
    told = response.json()["assessment"]
    (rating,) = await _said(live)
    assert (rating.request_id, rating.value, rating.rater) == (
        asked.request_id,
        False,
        "ann/bea@example.com",
    )
    assert (rating.comment, rating.source, rating.rater_kind) == ("not so", "mlflow", "human")
    assert (rating.tags["metadata"], rating.tags["create_time"]) == (
        '{"create_time": "ours"}',
        "2026-01-01T00:00:00Z",
    )
    assert (told["assessment_id"], told["trace_id"], told["valid"]) == (rating.event_id, trace, True)
    assert told["feedback"] == {"value": False} and told["create_time"].endswith("Z")


@pytest.mark.parametrize(
    ("expectation", "correction"),
    [
        ({"value": "SELECT 1"}, {"sql": "SELECT 1"}),
        (
            {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": '{"rows": [[1]]}'}},
            {"rows": [[1]]},
        ),
    ],
)
async def test_mlflow_an_expectation_is_a_correction(
    live: World, expectation: dict[str, Any], correction: dict[str, Any]
) -> None:
    asked = await _ask(live)
    body = _assessment(assessment_name="expected_response", expectation=expectation)
    assert (await live.http().post(_assessments(asked.request_id), json=body)).status_code == 200
    (rating,) = await _said(live)
    assert (rating.name, rating.value, rating.correction) == ("correct", False, correction)
    assert rating.tags["assessment_name"] == "expected_response"


async def test_mlflow_who_overrides_an_assessment_takes_it_back(live: World) -> None:
    asked = await _ask(live)
    path = _assessments(asked.trace_id)
    judge = {"source_type": "LLM_JUDGE", "source_id": "judge-1"}
    first = await live.http().post(path, json=_assessment(source=judge, feedback={"value": "yes"}))
    (rating,) = await _said(live)
    assert (rating.rater, rating.rater_kind) == ("ann/judge-1", "model")
    overrides = first.json()["assessment"]["assessment_id"]
    body = _assessment(feedback={"value": False}, overrides=overrides)
    assert (await live.http("bob").post(path, json=body)).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert (await live.http().post(path, json=body)).status_code == 200

    async def overridden() -> bool:
        return [one.rater for one in await _said(live)] == ["ann/bea@example.com"]

    await until(overridden)


def _serialized(value: str) -> dict[str, Any]:
    return {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": value}}


MLFLOW_REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"feedback": {"value": 3}}, 400, "INVALID_PARAMETER_VALUE"),
    ({"feedback": {"error": {"error_code": "X"}}}, 400, "INVALID_PARAMETER_VALUE"),
    ({"feedback": {"value": True}, "expectation": {"value": "x"}}, 400, "INVALID_PARAMETER_VALUE"),
    ({"expectation": {"value": 3}}, 400, "INVALID_PARAMETER_VALUE"),
    ({"expectation": {"value": "x" * 20_001}}, 400, "INVALID_PARAMETER_VALUE"),
    *(
        ({"expectation": _serialized(text)}, 400, "INVALID_PARAMETER_VALUE")
        for text in ("no JSON", '{"rows": [[NaN]]}', r'{"refusal": "\ud800"}', '{"a":' * 40 + "1" + "}" * 40)
    ),
    ({"feedback": {"value": True}, "issue": {"issue_name": "x"}}, 400, "INVALID_PARAMETER_VALUE"),
    ({"feedback": {"value": True}, "valid": False}, 400, "INVALID_PARAMETER_VALUE"),
    ({"feedback": {"value": True}, "trace_id": "another"}, 400, "INVALID_PARAMETER_VALUE"),
    ({"feedback": {"value": True}, "span_id": "f" * 16}, 404, "RESOURCE_DOES_NOT_EXIST"),
]


async def test_mlflow_an_assessment_is_looked_up_and_deleted_by_who_made_it(live: World) -> None:
    asked = await _ask(live)
    path, client = _assessments(asked.request_id), live.http()
    told = [
        (await client.post(path, json=_assessment(**said))).json()["assessment"]
        for said in (
            {"feedback": {"value": True}, "rationale": "as in the report"},
            {"assessment_name": "expected", "expectation": _serialized('{"rows": [[1]]}')},
        )
    ]
    ids = [assessment["assessment_id"] for assessment in told]
    shown = [(await client.get(f"{path}/{name}")).json()["assessment"] for name in ids]
    assert shown == [{**told[0], "valid": False}, told[1] | {"expectation": _serialized('{"rows": [[1]]}')}]
    assert (await live.http("bob").get(f"{path}/{ids[1]}")).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert (await live.http("bob").delete(f"{path}/{ids[1]}")).status_code == 404
    deleted = await client.delete(f"{path}/{ids[1]}")
    assert (deleted.status_code, deleted.json()) == (200, {})
    await _said(live, 0)
    assert (await client.get(f"{path}/{ids[1]}")).json()["assessment"]["valid"] is False


async def test_mlflow_refusals_have_a_code_of_mlflows(live: World) -> None:
    asked = await _ask(live)
    for change, status, code in MLFLOW_REFUSED:
        response = await live.http().post(_assessments(asked.request_id), json=_assessment(**change))
        assert (response.status_code, response.json().get("error_code")) == (status, code), change
        assert response.json()["message"]
    early = _assessment(expectation=_serialized('{"a":' * 400 + "1" + "}" * 400))
    assert (await live.http().post(_assessments(new_id("resp_")), json=early)).status_code == 400
    nobody = await live.http(None).post(_assessments(asked.request_id), json={})
    assert (nobody.status_code, nobody.json()["error_code"]) == (401, "UNAUTHENTICATED")
    broken = await live.http().post(_assessments(asked.request_id), content=b"{")
    assert broken.json()["error_code"] == "INVALID_PARAMETER_VALUE"


def _annotation(name: str, result: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "annotator_kind": "HUMAN", "result": result, **fields}


async def test_phoenix_spans_traces_and_sessions_are_requests_and_episodes(live: World) -> None:
    asked, plain = await _ask(live), await _ask(live, BASE)
    calls = [
        (
            "span",
            [_annotation("correct", {"label": "true", "explanation": "yes"}, span_id=asked.span_id)],
        ),
        ("trace", [_annotation("correct", {"score": 0.0, "label": "bad"}, trace_id=plain.trace_id)]),
        (
            "session",
            [_annotation("resolved", {"score": 1}, session_id=asked.episode_id, annotator_kind="CODE")],
        ),
    ]
    for kind, data in calls:
        response = await live.http().post(f"/v1/{kind}_annotations?sync=true", json={"data": data})
        assert response.status_code == 200, response.text
        assert len(response.json()["data"]) == 1 and response.json()["data"][0]["id"]
    found = {rating.name + str(rating.request_id): rating for rating in await _said(live, 3)}
    of_span = found["correct" + asked.request_id]
    assert (of_span.value, of_span.comment, of_span.rater) == (True, "yes", "ann")
    of_trace = found["correct" + plain.request_id]
    assert (of_trace.value, of_trace.tags["label"]) == (False, "bad")
    of_session = found["resolvedNone"]
    assert (of_session.value, of_session.episode_id, of_session.rater_kind) == (
        True,
        asked.episode_id,
        "code",
    )


async def test_phoenix_clients_find_a_version_that_has_annotations_of_sessions(live: World) -> None:
    response = await live.http(None).get("/arize_phoenix_version")
    assert (response.status_code, response.text) == (200, "12.0.0")


async def test_phoenix_the_identifier_tells_apart_who_annotates(live: World) -> None:
    asked = await _ask(live)
    for identifier, score in (("a", 1), ("b", 1), ("a", 0)):
        item = _annotation("correct", {"score": score}, trace_id=asked.trace_id, identifier=identifier)
        assert (await live.http().post("/v1/trace_annotations", json={"data": [item]})).status_code == 200

    async def stand() -> bool:
        found = {rating.rater: rating.value for rating in await _said(live, 2)}
        return found == {"ann/a": False, "ann/b": True}

    await until(stand)


async def test_phoenix_all_annotations_are_taken_or_none_and_people_read_why(live: World) -> None:
    asked = await _ask(live)
    good = _annotation("correct", {"score": 1}, span_id=asked.span_id)
    for change, status, words in (
        ({"span_id": "f" * 16}, 404, "no request with the span"),
        ({"result": {"explanation": "only words"}}, 400, "true or false"),
        ({"name": "note"}, 400, "Declared: correct"),
        ({"annotator_kind": "CAT"}, 400, "annotator_kind"),
    ):
        body = {"data": [good, {**good, **change}]}
        response = await live.http().post("/v1/span_annotations", json=body)
        assert (response.status_code, response.headers["content-type"]) == (
            status,
            "text/plain; charset=utf-8",
        )
        assert words in response.text
    assert (await live.http().post("/v1/span_annotations", json={"data": []})).json() == {"data": []}
    assert (await live.http(None).post("/v1/span_annotations", json={})).status_code == 401
    async with live.store() as store:
        assert list(store.ratings(tenant="default")) == []


async def test_a_request_that_is_on_its_way_to_the_store_is_found_by_its_trace_and_span(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live.gateway is not None
    monkeypatch.setattr(live.gateway.store, "write", _unreachable)
    asked = await _ask(live)
    for kind, target in (("trace", {"trace_id": asked.trace_id}), ("span", {"span_id": asked.span_id})):
        body = {"data": [_annotation("correct", {"score": 1}, **target)]}
        response = await live.http().post(f"/v1/{kind}_annotations", json=body)
        assert response.status_code == 200, response.text
    session = {"data": [_annotation("resolved", {"score": 1}, session_id=asked.episode_id)]}
    assert (await live.http().post("/v1/session_annotations", json=session)).status_code == 200
    monkeypatch.undo()


async def test_a_request_that_is_on_a_topic_is_found_by_its_trace_its_span_and_its_episode(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left the outbox and has not been collected: another of the same trace has."""
    assert live.gateway is not None
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    collected = await live.recorded((await _ask(live, traceparent=parent)).request_id)
    asked = await _ask(live, traceparent=parent)
    await live.recorded(asked.request_id)

    def newest(_tenant: str, trace_id: str | None = None, **_: str) -> RequestFinished | None:
        return collected if trace_id else None

    monkeypatch.setattr(live.gateway.store, "newest", newest)
    monkeypatch.setattr(live.gateway.store, "request", lambda *_: None)
    scores = [
        {"traceId": asked.trace_id, "name": "correct"},
        {"traceId": asked.trace_id, "observationId": asked.span_id, "name": "useful"},
        {"sessionId": asked.episode_id, "name": "resolved"},
    ]
    answers = [await _basic(live).post(SCORES, json={**score, "value": 1}) for score in scores]
    assert [answer.status_code for answer in answers] == [200, 400, 200], [one.text for one in answers]
    monkeypatch.undo()
    said = {(rating.name, rating.request_id, rating.episode_id) for rating in await _said(live, 2)}
    assert said == {
        ("correct", asked.request_id, asked.episode_id),
        ("resolved", None, asked.episode_id),
    }


def _unreachable(*_: object) -> None:
    from feedback.store import StoreError

    raise StoreError("away")
