"""A rating is about a request, one call in it, or an episode; by a metric of that level; and may come early."""

import shutil
import time
import uuid
from typing import Any

import pytest

from feedback.events import Rating, new_id
from gateway.targets import EARLY_SECONDS, is_early
from tests.gateway.conftest import AGENT, QUESTION, World, until
from tests.gateway.fake_vllm import BASE

FEEDBACK = "/v1/feedback"
_RUBRIC = """
[metrics.style]
type = "rubric"
[metrics.style.parts.polite]
type = "boolean"
[metrics.style.parts.stars]
type = "float"
minimum = 1
maximum = 5
"""


async def _ask(world: World, episode: str, model: str = AGENT, who: str = "ann") -> str:
    answer = await world.http(who).post(
        "/v1/chat/completions",
        json={"model": model, "messages": QUESTION},
        headers={"x-episode-id": episode},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def _said(world: World, body: dict[str, Any], who: str = "ann") -> Rating:
    """What has been recorded, when it has landed."""
    answer = await world.http(who).post(FEEDBACK, json=body)
    assert answer.status_code == 200, answer.text
    feedback_id = answer.json()["feedback_id"]
    async with world.store() as store:

        def found() -> Rating | None:
            return next((one for one in store.ratings(tenant="default") if one.event_id == feedback_id), None)

        await until(found)
        rating = found()
        assert rating is not None
        return rating


async def test_one_call_of_a_request_can_be_rated(live: World) -> None:
    request_id = await _ask(live, "e1")
    rating = await _said(live, {"request_id": request_id, "call": 1, "name": "useful", "value": False})
    assert (rating.request_id, rating.call, rating.episode_id, rating.value) == (request_id, 1, "e1", False)


async def test_an_episode_can_be_rated_and_an_unknown_one_is_404(live: World) -> None:
    await _ask(live, "e1")
    rating = await _said(live, {"episode_id": "e1", "name": "resolved", "value": True})
    assert (rating.request_id, rating.call, rating.episode_id) == (None, None, "e1")
    for who, episode in (("ann", "e2"), ("eve", "e1")):
        body = {"episode_id": episode, "name": "resolved", "value": True}
        refused = await live.http(who).post(FEEDBACK, json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (
            404,
            "episode_not_found",
            "episode_id",
        )


async def test_a_metric_of_another_level_is_refused_with_those_that_fit(live: World) -> None:
    await _ask(live, "e1")
    refused = await live.http().post(FEEDBACK, json={"episode_id": "e1", "value": True})
    assert refused.json()["error"]["message"] == (
        "The metric 'correct' rates a request, not a whole episode. Of a whole episode: resolved."
    )


async def test_a_rubric_is_rated_in_all_its_parts(world: World) -> None:
    folder = world.folder / "agent"
    shutil.copytree(world.config.agents[0], folder)
    with (folder / "manifest.toml").open("a") as manifest:
        manifest.write(_RUBRIC)
    async with world.running(agents=(folder,)):
        request_id = await _ask(world, "e1")
        value = {"polite": True, "stars": 4.0}
        rating = await _said(world, {"request_id": request_id, "name": "style", "value": value})
        assert rating.value == value
        body = {"request_id": request_id, "name": "style", "value": {"polite": True}}
        refused = (await world.http().post(FEEDBACK, json=body)).json()["error"]
        assert refused["param"] == "value" and "stars: a number from 1 to 5" in refused["message"]
        metrics = (await world.http().get("/metrics")).text
        assert 'name="style.stars"' in metrics


@pytest.mark.parametrize("correction", ["SELECT 1", ' {"sql": "SELECT 1"}\n', {"sql": "SELECT 1"}])
async def test_a_correction_is_kept_as_an_answer_of_the_agent_however_it_was_written(
    live: World, correction: str | dict[str, Any]
) -> None:
    request_id = await _ask(live, "e1")
    rating = await _said(live, {"request_id": request_id, "value": False, "correction": correction})
    assert rating.correction == {"sql": "SELECT 1"}


async def test_a_plain_models_answer_can_be_rated_and_corrected_by_a_text(live: World) -> None:
    request_id = await _ask(live, "e1", BASE)
    rating = await _said(live, {"request_id": request_id, "value": False, "correction": "Forty-two."})
    assert (rating.name, rating.value, rating.correction) == ("correct", False, "Forty-two.")
    for correction in ({"sql": "SELECT 1"}, {"answer": 42}):
        body = {"request_id": request_id, "value": False, "correction": correction}
        refused = (await live.http().post(FEEDBACK, json=body)).json()["error"]
        assert refused["param"] == "correction" and "the text" in refused["message"]
    unknown = (
        await live.http().post(FEEDBACK, json={"request_id": request_id, "name": "x", "value": True})
    ).json()
    assert "correct" in unknown["error"]["message"]


async def test_an_app_rates_for_many_people_who_are_told_apart(live: World) -> None:
    request_id = await _ask(live, "e1")
    for person, value in (("bea", True), ("cem", False), ("bea", False)):
        rating = await _said(live, {"request_id": request_id, "value": value, "rater": person})
        assert rating.rater == f"ann/{person}"
    listed = await live.http().get(FEEDBACK, params={"request_id": request_id})
    assert {(one["rater"], one["value"]) for one in listed.json()["data"]} == {
        ("ann/bea", False),
        ("ann/cem", False),
    }


async def test_a_rating_may_come_before_its_request_and_is_joined_later(world: World) -> None:
    """The request is still being answered elsewhere: here its id is known to nobody."""
    request_id = new_id("chatcmpl-")
    async with world.running():
        answer = await world.http().post(FEEDBACK, json={"request_id": request_id, "value": False})
        assert answer.status_code == 200
        assert answer.json()["matched"] is False
        for body, param in (
            ({"name": "beauty"}, "name"),
            ({"name": "resolved"}, "name"),
            ({"value": "yes"}, "value"),
            ({"correction": {"rows": 3}}, "correction.rows"),
        ):
            refused = await world.http().post(
                FEEDBACK, json={"request_id": request_id, "value": True, **body}
            )
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    async with world.store() as store:
        real = await _recorded_as(world, request_id)
        store.write([real])
        (joined,) = store.current_ratings(tenant="default", agent=AGENT)
        assert (joined.request_id, joined.value) == (request_id, False)


async def _recorded_as(world: World, request_id: str) -> Any:
    from tests.contracts.samples import request

    return request(request_id)


def _id_of(seconds: float, version: int = 7) -> str:
    """An id made so many seconds ago."""
    milliseconds = int((time.time() - seconds) * 1_000)
    return "chatcmpl-" + uuid.UUID(int=(milliseconds << 80) | (version << 76) | (2 << 62) | 1).hex


@pytest.mark.parametrize(
    ("request_id", "early"),
    [
        (new_id("chatcmpl-"), True),
        (new_id("resp_"), True),
        (new_id("cmpl-"), True),
        (new_id("embd-"), True),
        (_id_of(EARLY_SECONDS / 2), True),
        (_id_of(EARLY_SECONDS + 60), False),
        (_id_of(-3_600), False),
        (_id_of(10, version=4), False),
        (new_id("req-"), False),
        (new_id("chatcmpl-") + "0", False),
        ("chatcmpl-0", False),
        ("r1", False),
    ],
    ids=[  # ids hold the time, and would name the tests otherwise in each process
        *("chat", "response", "completion", "embeddings"),
        *("half an hour", "over an hour", "ahead", "not by time", "no prefix of ours", "too long"),
        *("short", "foreign"),
    ],
)
def test_an_id_is_early_that_was_made_here_within_the_hour(request_id: str, early: bool) -> None:
    assert is_early(request_id) is early


async def test_an_id_too_old_to_be_on_its_way_is_404_with_the_reason(live: World) -> None:
    refused = await live.http().post(FEEDBACK, json={"request_id": _id_of(EARLY_SECONDS + 60), "value": True})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (404, "request_not_found", "request_id")
    assert "Send the `id`" in error["message"]
