"""No tenant sees another's data or ids: whatever it asks, it hears what it would hear of ids that never were.

`mal` may do everything in a tenant of its own. What all tenants share (policies, status) is in `test_scopes.py`: it is
closed to everyone but operators.
"""

from typing import Any

import httpx
import pytest

from feedback.events import new_id
from gateway.scopes import ROUTES
from tests.gateway.conftest import AGENT, QUESTION, World, until
from tests.gateway.fake_vllm import BASE

_SHARED = {
    "GET /v1/models",
    "GET /v1/models/{name}",
}  # names of agents and policies, which all tenants may ask
_TRIED = ("/v1/keys", "/v1/responses", "/v1/feedback", "_annotations", "/api/public/", "/api/3.0/mlflow/")
_ASKED_ABOVE = {
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /mcp",  # in test_mcp.py
    "POST /v1/traces",  # in test_ingest.py
    "POST /v1/logs",
    "POST /v1/erasures",  # in test_privacy.py
    *(line for line in ROUTES if any(part in line for part in _TRIED)),
}


def test_every_route_with_data_of_a_tenant_is_tried_here() -> None:
    open_or_operated = {line for line, scopes in ROUTES.items() if not scopes or scopes == ("operate",)}
    assert set(ROUTES) == _SHARED | _ASKED_ABOVE | open_or_operated


def _told(response: httpx.Response, given: str) -> tuple[int, Any]:
    """What an answer says, apart from the id that was asked for."""
    return response.status_code, response.json() if given not in response.text else response.text.replace(
        given, "?"
    )


async def _rated(world: World) -> str:
    request_id = (await world.openai("ann").chat.completions.create(model=AGENT, messages=QUESTION)).id
    body = {"request_id": request_id, "value": False, "comment": "secret"}
    assert (await world.http("ann").post("/v1/feedback", json=body)).status_code == 200
    review = world.http("rev")

    async def landed() -> bool:
        listed = await review.get("/v1/feedback", params={"request_id": request_id})
        return bool(listed.json()["data"])

    await until(landed)
    return request_id


async def test_post_feedback(live: World) -> None:
    theirs, mal = await _rated(live), live.http("mal")
    answers = [
        await mal.post("/v1/feedback", json={"request_id": asked, "value": True})
        for asked in (
            theirs,
            new_id("chatcmpl-"),
        )  # either may be on its way, for all that another tenant knows
    ]
    assert [(answer.status_code, answer.json()["matched"]) for answer in answers] == [(200, False)] * 2
    batch = await mal.post("/v1/feedback/batch", json={"items": [{"request_id": theirs, "value": 3}]})
    unknown = {"items": [{"request_id": new_id("chatcmpl-"), "value": 3}]}
    assert batch.json() == (await mal.post("/v1/feedback/batch", json=unknown)).json()
    for scored in ("ann", "rev"):
        listed = await live.http(scored).get("/v1/feedback", params={"request_id": theirs})
        assert [rating["rater"] for rating in listed.json()["data"]] == ["ann"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_feedback_by_id(live: World, method: str) -> None:
    request_id = await _rated(live)
    listed = await live.http("ann").get("/v1/feedback", params={"request_id": request_id})
    theirs = listed.json()["data"][0]["feedback_id"]
    answers = [
        _told(await live.http("mal").request(method, f"/v1/feedback/{asked}"), asked)
        for asked in (theirs, new_id())
    ]
    assert answers[0] == answers[1] and answers[0][0] == 404
    assert (await live.http("ann").get(f"/v1/feedback/{theirs}")).json()["value"] is False
    of_trace = f"/api/3.0/mlflow/traces/{request_id}/assessments"
    answers = [
        _told(await live.http("mal").request(method, f"{of_trace}/{asked}"), asked)
        for asked in (theirs, new_id())
    ]
    assert answers[0] == answers[1] and answers[0][0] == 404
    assert (await live.http("ann").get(f"{of_trace}/{theirs}")).json()["assessment"]["valid"] is True


def _as_others_do(path: str, ids: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """A rating in another product's shape, of a request with these ids."""
    if "_annotations" in path:
        kind = path.removeprefix("/v1/").removesuffix("_annotations")
        item = {"name": "resolved" if kind == "session" else "correct", "annotator_kind": "HUMAN"}
        return path, {"data": [{**item, f"{kind}_id": ids[kind], "result": {"score": 1}}]}
    if "mlflow" in path:
        source = {"source_type": "HUMAN", "source_id": "x"}
        assessment = {"assessment_name": "correct", "source": source, "feedback": {"value": True}}
        return path.format(ids["trace"]), {"assessment": assessment}
    return path, {"traceId": ids["trace"], "name": "correct", "value": 1}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/span_annotations",
        "/v1/trace_annotations",
        "/v1/session_annotations",
        "/api/3.0/mlflow/traces/{}/assessments",
        "/api/public/scores",
    ],
)
async def test_other_products_ways_to_rate(live: World, path: str) -> None:
    chat = {"model": AGENT, "messages": QUESTION}
    answer = await live.http("ann").post("/v1/chat/completions", json=chat)
    await live.recorded(answer.json()["id"])
    _, trace, span, _ = answer.headers["traceparent"].split("-")
    ids = {"trace": trace, "span": span, "session": answer.headers["x-episode-id"]}
    nowhere = {"trace": "e" * 32, "span": "e" * 16, "session": "nowhere"}
    answers = []
    for asked in (ids, nowhere):
        where, body = _as_others_do(path, asked)
        response = await live.http("mal").post(where, json=body)
        text = response.text
        for given in asked.values():
            text = text.replace(given, "?")
        answers.append((response.status_code, text))
    assert answers[0] == answers[1] and answers[0][0] == 404
    where, body = _as_others_do(path, ids)
    assert (await live.http("ann").post(where, json=body)).status_code == 200


async def test_scores_by_the_ids_of_their_clients(live: World) -> None:
    request_id = await _rated(live)
    score = {"id": "s1", "traceId": request_id, "name": "correct", "value": 0}
    assert (await live.http("ann").post("/api/public/scores", json=score)).status_code == 200
    events = {"batch": [{"id": "e", "type": "score-create", "body": {**score, "traceId": "f" * 32}}]}
    assert (await live.http("mal").post("/api/public/ingestion", json=events)).json()["errors"]
    listed = live.http("rev")

    async def landed() -> bool:
        data = (await listed.get("/v1/feedback", params={"source": "langfuse"})).json()["data"]
        return bool(data)

    await until(landed)
    answers = [
        _told(await live.http("mal").delete(f"/api/public/scores/{asked}"), asked) for asked in ("s1", "s2")
    ]
    assert answers[0] == answers[1] and answers[0][0] == 404
    assert await landed()


async def test_get_feedback(live: World) -> None:
    theirs, mal = await _rated(live), live.http("mal")
    for asked in (theirs, "chatcmpl-0"):
        response = await mal.get("/v1/feedback", params={"request_id": asked})
        assert (response.status_code, response.json()["data"]) == (200, [])


async def test_within_a_tenant_only_reviewers_read_what_others_say(live: World) -> None:
    request_id = await _rated(live)
    for who, comments in (("ann", ["secret"]), ("bob", []), ("rev", ["secret"])):
        listed = await live.http(who).get("/v1/feedback", params={"request_id": request_id})
        assert [rating["comment"] for rating in listed.json()["data"]] == comments


async def test_post_chat_completions_belongs_to_the_tenant_of_the_key_whatever_the_client_says(
    live: World,
) -> None:
    first = await live.http("ann").post(
        "/v1/chat/completions",
        json={"model": AGENT, "messages": QUESTION},
        headers={"x-episode-id": "shared-name"},
    )
    second = await live.http("mal").post(
        "/v1/chat/completions",
        json={"model": AGENT, "messages": QUESTION, "metadata": {"tenant": "default"}},
        headers={"x-episode-id": "shared-name"},
    )
    ours, theirs = first.json()["id"], second.json()["id"]
    assert (await live.recorded(theirs, "other")).tenant == "other"
    await live.recorded(ours)
    async with live.store() as store:
        assert store.request(theirs, "default") is None is store.request(ours, "other")
        for tenant, wanted in (("default", ours), ("other", theirs)):
            found = store.requests(tenant=tenant, episode_id="shared-name")
            assert [event.request_id for event in found] == [wanted]


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/chat/completions", "messages"), ("/v1/completions", "prompt"), ("/v1/embeddings", "input")],
)
async def test_what_plain_models_answer_belongs_to_the_tenant_of_the_key(
    live: World, path: str, field: str
) -> None:
    asked = QUESTION if field == "messages" else "secret"
    response = await live.http("mal").post(path, json={"model": BASE, field: asked})
    theirs = response.headers["x-request-id"]
    assert (await live.recorded(theirs, "other")).tenant == "other"
    async with live.store() as store:
        assert store.request(theirs, "default") is None
    for asked_id in (theirs, new_id("cmpl-")):
        rated = await live.http("ann").post("/v1/feedback", json={"request_id": asked_id, "value": True})
        assert (rated.status_code, rated.json()["matched"]) == (200, False)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/{}"),
        ("DELETE", "/v1/responses/{}"),
        ("POST", "/v1/responses/{}/cancel"),
        ("GET", "/v1/responses/{}/input_items"),
    ],
)
async def test_responses_by_id(live: World, method: str, path: str) -> None:
    ann, mal = live.http("ann"), live.http("mal")
    theirs = (await ann.post("/v1/responses", json={"model": AGENT, "input": "secret"})).json()["id"]
    answers = [
        _told(await mal.request(method, path.format(asked)), asked) for asked in (theirs, "resp_" + "0" * 32)
    ]
    assert answers[0] == answers[1] and answers[0][0] == 404
    assert (await ann.get(f"/v1/responses/{theirs}")).status_code == 200


async def test_post_responses_continues_no_response_of_another_tenant(live: World) -> None:
    body = {"model": AGENT, "input": "secret"}
    theirs = (await live.http("ann").post("/v1/responses", json=body)).json()["id"]
    answers = [
        _told(
            await live.http("mal").post("/v1/responses", json={**body, "previous_response_id": asked}), asked
        )
        for asked in (theirs, "resp_" + "0" * 32)
    ]
    assert answers[0] == answers[1] and answers[0][0] == 400


async def test_get_keys(live: World) -> None:
    listed = (await live.http("mal").get("/v1/keys")).json()["data"]
    assert {key["owner"] for key in listed} == {"eve", "mal"}
    assert {key["tenant"] for key in listed} == {"other"}


async def test_post_keys(live: World) -> None:
    made = (await live.http("mal").post("/v1/keys", json={"owner": "ann"})).json()
    assert made["tenant"] == "other"
    forbidden = await live.http("mal").post("/v1/keys", json={"owner": "ann", "tenant": "default"})
    assert forbidden.status_code == 400


@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("POST", {"limits": {"requests_per_minute": 1}}), ("DELETE", None)]
)
async def test_keys_by_id(live: World, method: str, body: dict[str, Any] | None) -> None:
    admin, mal = live.http("adm"), live.http("mal")
    keys = (await admin.get("/v1/keys")).json()["data"]
    theirs = next(key["id"] for key in keys if key["owner"] == "ann")
    answers = [
        _told(await mal.request(method, f"/v1/keys/{asked}", json=body), asked)
        for asked in (theirs, "0" * 16)
    ]
    assert answers[0] == answers[1] and answers[0][0] == 404
    assert (await admin.get("/v1/keys")).json()["data"] == keys
