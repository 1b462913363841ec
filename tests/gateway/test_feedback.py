"""People rate what they were answered, as early and as often as they like, and only what is theirs."""

from typing import Any

import pytest

from feedback.events import new_id
from tests.gateway.conftest import AGENT, QUESTION, World, until

FEEDBACK = "/v1/feedback"


async def _ask(world: World, who: str = "ann") -> str:
    return (await world.openai(who).chat.completions.create(model=AGENT, messages=QUESTION)).id


async def test_a_rating_just_after_the_answer_is_taken_and_lands(live: World) -> None:
    request_id = await _ask(live)
    body = {
        "request_id": request_id,
        "value": False,
        "correction": {"rows": [[3, "open", None]]},
        "comment": "three",
        "tags": {"team": "claims"},
        "source": "excel",
    }
    response = await live.http().post(FEEDBACK, json=body)
    assert response.status_code == 200 and response.json()["matched"]
    client = live.http()

    async def listed() -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = (await client.get(FEEDBACK, params={"request_id": request_id})).json()[
            "data"
        ]
        return data

    await until(listed)
    (rating,) = await listed()
    assert rating.pop("time")
    assert rating == {
        **body,
        "feedback_id": response.json()["feedback_id"],
        "object": "feedback",
        "name": "correct",
        "rater": "ann",
        "rater_kind": "human",
        "redacted": [],
        "call": None,
        "episode_id": response.headers.get("x-episode-id") or rating["episode_id"],
    }


async def test_a_rating_is_taken_before_the_relay_has_landed_the_request(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live.gateway is not None
    monkeypatch.setattr(live.gateway.store, "request", lambda *_: None)  # as if nothing had landed
    request_id = await _ask(live)
    response = await live.http().post(FEEDBACK, json={"request_id": request_id, "value": True})
    assert response.status_code == 200


async def test_a_request_from_before_a_restart_can_be_rated_and_the_last_rating_counts(world: World) -> None:
    async with world.running():
        request_id = await _ask(world)
    async with world.running():
        for who, value in (("ann", True), ("bob", True), ("ann", False)):
            response = await world.http(who).post(FEEDBACK, json={"request_id": request_id, "value": value})
            assert response.status_code == 200
    async with world.store() as store:
        ratings = store.current_ratings(tenant="default", request_id=request_id)
        assert {rating.rater: rating.value for rating in ratings} == {"ann": False, "bob": True}


async def test_an_answer_by_the_agents_own_schema_is_a_correction(live: World) -> None:
    request_id = await _ask(live)
    corrections: list[dict[str, Any]] = [{"sql": "SELECT 1"}, {"refusal": "no such data"}, {"rows": []}]
    for correction in corrections:
        body = {"request_id": request_id, "value": False, "correction": correction}
        assert (await live.http().post(FEEDBACK, json=body)).status_code == 200


async def test_another_tenants_request_is_as_unknown_as_one_that_never_was(live: World) -> None:
    request_id = await _ask(live)
    await live.recorded(request_id)
    eve = live.http("eve")
    for body in (
        {"value": True},
        {"value": 3},
        {"value": True, "correction": {"rows": 3}},
        {"value": True, "call": 0},
    ):
        theirs = await eve.post(FEEDBACK, json={**body, "request_id": request_id})
        unknown = await eve.post(FEEDBACK, json={**body, "request_id": new_id("chatcmpl-")})
        assert theirs.status_code == unknown.status_code
        assert theirs.json().get("error") == unknown.json().get("error")
        assert theirs.json().get("matched") == unknown.json().get("matched")
    told = (await eve.get(FEEDBACK, params={"request_id": request_id})).json()["data"]
    assert {rating["rater"] for rating in told} <= {"eve"} and "ann" not in str(told)
    ours = (await live.http("rev").get(FEEDBACK, params={"request_id": request_id})).json()["data"]
    assert ours == []


_UNUSABLE: list[tuple[dict[str, Any], str | None, str]] = [
    ({"value": "yes"}, "value", "true or false"),
    ({"value": 1}, "value", "true or false"),
    ({"value": None}, "value", "true or false"),
    ({"name": "beauty"}, "name", "correct"),
    ({"correction": {"rows": 3}}, "correction.rows", "list of rows"),
    ({"correction": {"rows": [[[1]]]}}, "correction.rows", "null"),
    ({"correction": {"rows": [[1]] * 1_001}}, "correction.rows", "1000"),
    ({"correction": {"rows": [[1] * 51]}}, "correction.rows", "50"),
    ({"correction": {"query": "SELECT 1"}}, "correction", "rows"),
    ({"correction": {"sql": 1}}, "correction", "schema"),
    ({"rater": "x" * 197}, "rater", "196"),
    ({"who": "bob"}, "who", "rater"),
    ({"value": {"polite": True}}, "value", "true or false"),
    ({"value": {}}, "value", "rubric"),
    ({"name": "resolved"}, "name", "Of a request: correct"),
    ({"call": 0}, "name", "Of one call of a request: useful"),
    ({"call": 2, "name": "useful"}, "call", "2 calls"),
    ({"call": -1}, "call", "greater"),
    ({"episode_id": "e"}, None, "either"),
    ({"correction": "no SQL at all"}, "correction", "its SQL"),
    ({"correction": "DELETE FROM claims"}, "correction", "one SELECT"),
    ({"correction": '{"query": 1}'}, "correction", "schema"),
    ({"correction": ""}, "correction", "1 to 20000"),
    ({"correction": r'{"refusal": "\ud800"}'}, "correction", "neither"),
    ({"tags": {"a": 1}}, "tags.a", "string"),
    ({"request_id": new_id("resp_"), "call": 2**31, "name": "useful"}, "call", "less than"),
]


async def test_what_cannot_be_used_is_refused_with_what_is_expected(live: World) -> None:
    request_id = await _ask(live)
    client = live.http()
    for change, param, words in _UNUSABLE:
        response = await client.post(FEEDBACK, json={"request_id": request_id, "value": True, **change})
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (
            404 if param == "call" and "calls" in words else 400,
            param,
        ), change
        assert words in error["message"]
