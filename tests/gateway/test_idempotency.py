"""A client that is not sure whether it was heard asks again, with the same key, and nothing is done twice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from feedback.quota import Quota
from feedback.store import Claim, Replies, StoreError
from gateway.idempotency import ends_with_done, ends_with_response
from gateway.limits.config import LimitsConfig
from tests.gateway.conftest import AGENT, QUESTION, World, until

CHAT, FEEDBACK = "/v1/chat/completions", "/v1/feedback"
GOOD: dict[str, Any] = {"model": AGENT, "messages": QUESTION}
KEY = {"idempotency-key": "7a1c"}


@pytest.mark.parametrize(
    ("ends", "tail", "whole"),
    [
        (ends_with_done, b'data: {"choices":[]}\n\ndata: [DONE]\n\n', True),
        (ends_with_done, b'data: {"choices":[]}\n\n', False),
        (ends_with_done, b'x\n\ndata: {"error":{"code":"x"}}\n\ndata: [DONE]\n\n', False),
        (ends_with_response, b'x\n\nevent: response.completed\ndata: {"a":"\\n\\nevent: error"}\n\n', True),
        (ends_with_response, b"x\n\nevent: response.incomplete\ndata: {}\n\n", True),
        (ends_with_response, b"x\n\nevent: response.failed\ndata: {}\n\n", False),
        (ends_with_response, b"event: response.completed\ndata: {}\n\nevent: error\ndata: {}\n\n", False),
        (ends_with_response, b"", False),
    ],
)
def test_only_a_stream_that_came_to_its_end_is_kept(
    ends: Callable[[bytes], bool], tail: bytes, whole: bool
) -> None:
    assert ends(tail) == whole


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_request_gets_the_answer_that_it_had(live: World, stream: bool) -> None:
    body = {**GOOD, "stream": stream, "stream_options": {"include_usage": True} if stream else None}
    first = await live.http().post(CHAT, json=body, headers=KEY)
    again = await live.http().post(CHAT, json=body, headers=KEY)
    assert first.status_code == again.status_code == 200
    assert again.content == first.content and len(live.vllm.requests) == 1
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("content-type", "x-policy", "x-request-id", "x-episode-id"):
        assert again.headers[name] == first.headers[name]
    assert (await live.recorded(first.headers["x-request-id"])).status == "completed"


async def test_a_restart_forgets_no_answer(world: World) -> None:
    answers = []
    for _ in range(2):
        async with world.running():
            answers.append((await world.http().post(CHAT, json=GOOD, headers=KEY)).content)
    assert answers[0] == answers[1] and len(world.vllm.requests) == 1


async def test_the_official_client_sends_the_key_as_a_header(live: World) -> None:
    client = live.openai()
    ids = {
        (await client.chat.completions.create(model=AGENT, messages=QUESTION, extra_headers=KEY)).id
        for _ in range(2)
    }
    assert len(ids) == 1


async def test_a_rating_is_recorded_once(live: World) -> None:
    request_id = (await live.http().post(CHAT, json=GOOD)).json()["id"]
    body = {"request_id": request_id, "value": True}
    answers = [(await live.http().post(FEEDBACK, json=body, headers=KEY)).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    async with live.store() as store:
        await until(lambda: store.counts()["ratings"])
        assert store.counts()["ratings"] == 1


async def test_another_request_under_the_same_key_is_422(live: World) -> None:
    assert (await live.http().post(CHAT, json=GOOD, headers=KEY)).status_code == 200
    for path, body in ((CHAT, {**GOOD, "temperature": 1}), (FEEDBACK, {"request_id": "x", "value": True})):
        response = await live.http().post(path, json=body, headers=KEY)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (422, "idempotency_key_reused")
        assert error["type"] == "invalid_request_error"
    assert len(live.vllm.requests) == 1


async def test_callers_do_not_meet_under_a_key_not_even_within_a_tenant(live: World) -> None:
    ids = {
        (await live.http(who).post(CHAT, json=GOOD, headers=KEY)).json()["id"]
        for who in ("ann", "bob", "eve")
    }
    assert len(ids) == 3


async def test_while_a_request_is_answered_its_double_is_409_and_then_a_replay(live: World) -> None:
    live.vllm.seconds_per_chunk = 0.1
    first = asyncio.create_task(live.http().post(CHAT, json=GOOD, headers=KEY))
    await until(lambda: live.vllm.running)
    double = await live.http().post(CHAT, json=GOOD, headers=KEY)
    assert (double.status_code, double.headers["retry-after"]) == (409, "1")
    assert double.json()["error"]["code"] == "idempotent_request_in_progress"
    answer = (await first).content
    assert (await live.http().post(CHAT, json=GOOD, headers=KEY)).content == answer
    assert len(live.vllm.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_after_an_error_the_next_attempt_starts_anew(live: World, stream: bool) -> None:
    live.vllm.break_after = 2
    body = {**GOOD, "stream": stream}
    broken = await live.http().post(CHAT, json=body, headers=KEY)
    assert '"error"' in broken.text
    live.vllm.break_after = None
    good = await live.http().post(CHAT, json=body, headers=KEY)
    assert good.status_code == 200 and '"error"' not in good.text
    assert "idempotency-replayed" not in good.headers and len(live.vllm.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_after_a_client_has_left_the_next_attempt_starts_anew(live: World, stream: bool) -> None:
    live.vllm.seconds_per_chunk = 0.2
    body = {**GOOD, "stream": stream}
    leaving = asyncio.create_task(live.http().post(CHAT, json=body, headers=KEY))
    await until(lambda: live.vllm.running)
    leaving.cancel()
    await until(lambda: live.vllm.aborted)
    live.vllm.seconds_per_chunk = 0.0
    client = live.http()

    async def answered() -> bool:
        return (await client.post(CHAT, json=body, headers=KEY)).status_code == 200

    await until(answered)


async def test_what_was_refused_claims_nothing(live: World) -> None:
    for body, status in (({**GOOD, "n": 7}, 400), ({**GOOD, "model": "x"}, 404), (GOOD, 200)):
        assert (await live.http().post(CHAT, json=body, headers=KEY)).status_code == status


async def test_a_replay_costs_nothing_of_the_limits(world: World) -> None:
    async with world.running(limits=LimitsConfig(key=Quota(requests_per_minute=1))):
        for _ in range(3):
            assert (await world.http().post(CHAT, json=GOOD, headers=KEY)).status_code == 200
        assert (await world.http().post(CHAT, json=GOOD)).status_code == 429


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_too_large_to_be_kept_is_not_made_a_second_time(
    world: World, stream: bool
) -> None:
    async with world.running(idempotency_max_bytes=10):
        body = {**GOOD, "stream": stream}
        assert (await world.http().post(CHAT, json=body, headers=KEY)).status_code == 200
        again = await world.http().post(CHAT, json=body, headers=KEY)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotent_answer_not_kept")
    assert len(world.vllm.requests) == 1


async def test_after_its_time_an_answer_is_forgotten(world: World) -> None:
    async with world.running(idempotency_hours=1e-7):
        ids = {(await world.http().post(CHAT, json=GOOD, headers=KEY)).json()["id"] for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "k\u00e4se"])
async def test_a_key_that_is_none_is_400(live: World, key: str) -> None:
    response = await live.http().post(CHAT, json=GOOD, headers=[(b"idempotency-key", key.encode("latin-1"))])
    assert (response.status_code, response.json()["error"]["param"]) == (400, "idempotency-key")


async def test_who_has_the_answer_keeps_it_though_it_could_not_be_kept(
    live: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> bool:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Replies, "finish", down)
    response = await live.http().post(CHAT, json={**GOOD, "stream": True}, headers=KEY)
    assert response.text.endswith("data: [DONE]\n\n")
    assert "the disk is full" in caplog.text


async def test_a_long_answer_keeps_its_claim(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[Claim] = []
    monkeypatch.setattr("gateway.idempotency.HOLD_SECONDS", 0.06)
    monkeypatch.setattr(Replies, "renew", lambda _, claim: renewed.append(claim))
    live.vllm.seconds_per_chunk = 0.05
    assert (await live.http().post(CHAT, json=GOOD, headers=KEY)).status_code == 200
    count = len(renewed)
    assert count >= 2
    await asyncio.sleep(0.1)
    assert len(renewed) == count


async def test_doubles_that_reach_two_gateways_at_once_are_answered_once(world: World) -> None:
    elsewhere = world.config.model_copy(update={"outbox_path": world.folder / "outbox2.db"})
    twin = World(world.folder, world.keys, world.vllm, elsewhere)
    world.vllm.seconds_per_chunk = 0.1
    async with world.running(), twin.running():
        sent = (w.http().post(CHAT, json=GOOD, headers=KEY) for w in (world, twin))
        statuses = sorted([response.status_code for response in await asyncio.gather(*sent)])
        assert statuses == [200, 409] and len(world.vllm.requests) == 1
        ids = {(await w.http().post(CHAT, json=GOOD, headers=KEY)).json()["id"] for w in (world, twin)}
        assert len(ids) == 1
