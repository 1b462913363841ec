"""A client is limited as its key and tenant are, hears it in OpenAI's words, and pays what it used."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from feedback.quota import Quota
from feedback.store import Keys, Slot, Spent, Usage
from gateway.config import GatewayConfig
from gateway.limits.config import LimitsConfig, Price
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World, ground, until, world
from tests.gateway.fake_vllm import answer_of
from tests.gateway.redis_server import redis_server

__all__ = ["ground", "world"]  # fixtures

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {"model": AGENT, "messages": QUESTION, "max_tokens": 50}
ESTIMATE = -(-len(TEXT) // 4) + 50
PROMPT = 2  # what the fake vLLM makes of a system message and a question
COMPLETION = len(answer_of("base"))
USED = PROMPT + COMPLETION


@asynccontextmanager
async def limited(world: World, **limits: Any) -> AsyncIterator[World]:
    async with world.running(limits=LimitsConfig(**limits)):
        yield world


async def _made(world: World, **quota: Any) -> str:
    """A name by which `world.http` finds a new key with these limits."""
    name = f"tim{len(world.keys)}"
    async with world.store() as store:
        secret = Keys(store).create(name, ["invoke"], quota=Quota(**quota))
    world.keys = {**world.keys, name: secret}
    return name


async def test_headers_say_what_is_left_and_429_says_when_to_come_back(world: World) -> None:
    async with limited(world, key=Quota(requests_per_minute=2, tokens_per_minute=10_000)):
        client = world.http()
        first = await client.post(CHAT, json=GOOD)
        told = {k: v for k, v in first.headers.items() if k.startswith("x-ratelimit")}
        assert told.pop("x-ratelimit-reset-requests") == "30s"
        assert told.pop("x-ratelimit-reset-tokens") == f"{-(-ESTIMATE * 60_000 // 10_000)}ms"
        assert told == {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-limit-tokens": "10000",
            "x-ratelimit-remaining-tokens": str(10_000 - ESTIMATE),
        }
        streamed = await client.post(CHAT, json={**GOOD, "stream": True})
        assert streamed.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await world.openai().chat.completions.create(model=AGENT, messages=QUESTION)
        error = caught.value
        assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
        assert 20 <= int(error.response.headers["retry-after"]) <= 30
        assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert "requests per minute of this key" in error.message
        assert (await world.http("bob").post(CHAT, json=GOOD)).status_code == 200


async def test_without_limits_nothing_is_said_of_them(world: World) -> None:
    async with world.running():
        response = await world.http().post(CHAT, json=GOOD)
        assert not [name for name in response.headers if name.startswith("x-ratelimit")]


async def test_tokens_are_taken_by_estimate_and_settled_by_use(world: World) -> None:
    async with limited(world, key=Quota(tokens_per_minute=200)):
        client = world.http()
        for stream in (True, False):
            assert (await client.post(CHAT, json={**GOOD, "stream": stream})).status_code == 200
        last = await client.post(CHAT, json=GOOD)
        left = int(last.headers["x-ratelimit-remaining-tokens"])
        taken = 200 - left
        assert ESTIMATE + 2 * USED - 10 <= taken <= ESTIMATE + 2 * USED  # 3.3 come back in a second


async def test_a_request_that_failed_gives_its_tokens_back_and_a_cancelled_one_does_not(world: World) -> None:
    async with limited(world, key=Quota(tokens_per_day=10_000)):
        client = world.http()
        world.vllm.break_after = 1
        assert (await client.post(CHAT, json=GOOD)).status_code in (502, 503)
        world.vllm.break_after, world.vllm.seconds_per_chunk = None, 5
        asking = asyncio.create_task(client.post(CHAT, json=GOOD))
        await until(lambda: world.vllm.running)
        asking.cancel()
        await until(lambda: world.vllm.aborted)
    assert await _spent(world, "tenant") == []
    assert [spent.tokens for spent in await _spent(world, "key")] == [ESTIMATE]


async def _spent(world: World, kind: str) -> list[Spent]:
    async with world.store() as store:
        with store.reading() as connection:
            rows = connection.exec_driver_sql("SELECT subject, period FROM usage").all()
        spent = Usage(store).add({Slot(*row): Spent() for row in rows if row[0].startswith(kind)})
    return [value for value in spent.values() if any(value)]


async def test_what_can_never_pass_is_said_to_be_so_and_not_tried_again(world: World) -> None:
    async with limited(world, key=Quota(tokens_per_minute=40)):
        response = await world.http().post(CHAT, json=GOOD)
        assert response.status_code == 429
        assert response.headers["x-should-retry"] == "false" and "retry-after" not in response.headers
        assert "can never pass" in response.json()["error"]["message"]
        small = await world.http().post(CHAT, json={**GOOD, "max_tokens": 5})
        assert small.status_code == 200


async def test_a_refused_request_takes_nothing(world: World) -> None:
    async with limited(world, key=Quota(requests_per_minute=1), tenant=Quota(tokens_per_day=1_000)):
        client = world.http()
        for status in (200, 429, 429):
            assert (await client.post(CHAT, json=GOOD)).status_code == status
    assert await _spent(world, "tenant") == [Spent(USED, 0)]


async def test_what_is_refused_for_another_reason_takes_nothing(world: World) -> None:
    async with limited(world, key=Quota(requests_per_minute=1)):
        client = world.http()
        assert (await client.post(CHAT, json={**GOOD, "model": "unknown"})).status_code == 404
        assert (await client.post(CHAT, json={**GOOD, "n": 7})).status_code == 400
        assert (await client.post(CHAT, json=GOOD)).status_code == 200


async def test_keys_of_a_tenant_share_its_limit_and_another_tenant_has_its_own(world: World) -> None:
    other = {"other": Quota(requests_per_minute=1)}
    async with limited(world, tenant=Quota(requests_per_minute=2), tenants=other):
        for who, status in (("ann", 200), ("bob", 200), ("ann", 429), ("eve", 200), ("mal", 429)):
            response = await world.http(who).post(CHAT, json=GOOD)
            assert response.status_code == status, who
        assert "of this tenant" in response.json()["error"]["message"]


async def test_a_keys_own_limit_goes_before_the_default_and_a_changed_one_holds_at_once(world: World) -> None:
    async with limited(world, key=Quota(requests_per_minute=1)):
        much, none = (
            await _made(world, requests_per_minute="unlimited"),
            await _made(world, requests_per_minute=2),
        )
        for _ in range(4):
            assert (await world.http(much).post(CHAT, json=GOOD)).status_code == 200
        statuses = [(await world.http(none).post(CHAT, json=GOOD)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        admin = world.http("adm")
        keys = (await admin.get("/v1/keys")).json()["data"]
        path = f"/v1/keys/{next(key['id'] for key in keys if key['owner'] == none)}"
        changed = await admin.post(path, json={"limits": {"requests_per_minute": 600}})
        assert changed.status_code == 200
        client = world.http(none)

        async def passes() -> (
            bool
        ):  # the bucket is as empty as it was, and fills ten times a second from now on
            return (await client.post(CHAT, json=GOOD)).status_code == 200

        await until(passes, 5)


async def test_a_budget_of_tokens_ends_in_insufficient_quota_also_after_a_restart(world: World) -> None:
    limits = {"key": Quota(tokens_per_day=ESTIMATE + USED)}
    async with limited(world, **limits):
        client = world.http()
        assert (await client.post(CHAT, json=GOOD)).status_code == 200
        assert (await client.post(CHAT, json=GOOD)).status_code == 200
    async with limited(world, **limits):
        with pytest.raises(openai.RateLimitError) as caught:
            await world.openai().chat.completions.create(model=AGENT, messages=QUESTION, max_tokens=50)
        assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 86_400
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert f"budget of {ESTIMATE + USED} tokens a day" in caught.value.message


async def test_a_budget_of_money_is_spent_by_the_price_of_the_model(world: World) -> None:
    prices = {AGENT: Price(prompt=1_000, completion=10_000)}
    async with limited(world, tenant=Quota(money_per_month=1), prices=prices):
        assert (await world.http().post(CHAT, json=GOOD)).status_code == 200
    assert await _spent(world, "tenant") == [Spent(USED, PROMPT * 1_000 + COMPLETION * 10_000)]
    async with limited(world, tenant=Quota(money_per_month=0.5), prices=prices):
        response = await world.http().post(CHAT, json=GOOD)
        assert response.json()["error"]["code"] == "insufficient_quota"
        assert "budget of 0.50 a month" in response.json()["error"]["message"]


async def test_gateways_with_one_redis_share_their_limits_and_live_without_it(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with redis_server() as server:
        limits = {"redis_url": server.url, "redis_seconds": 2, "tenant": Quota(requests_per_minute=3)}
        twin = World(world.folder, world.keys, world.vllm, _elsewhere(world))
        async with limited(world, **limits), limited(twin, **limits):
            statuses = [(await w.http().post(CHAT, json=GOOD)).status_code for w in (world, twin) * 2]
            assert statuses == [200, 200, 200, 429]
            server.stop()
            statuses = [(await w.http().post(CHAT, json=GOOD)).status_code for w in (world, twin) * 4]
            assert statuses == [200] * 6 + [429] * 2  # each for itself, each with its limit
            server.start()


def _elsewhere(world: World) -> GatewayConfig:
    return world.config.model_copy(update={"outbox_path": world.folder / "outbox2.db"})


_TOLD = [  # what a client sends that rates, or tells of traces; and where the answer holds its words
    ("/v1/feedback", {"request_id": "x", "name": "correct", "value": True}, ("error", "message")),
    ("/v1/feedback/batch", {"items": [{}]}, ("error", "message")),
    ("/api/public/scores", [], ("message",)),
    ("/api/public/ingestion", {"batch": []}, ("message",)),
    ("/api/3.0/mlflow/traces/x/assessments", {"assessment": {}}, ("message",)),
    ("/v1/span_annotations", {"data": []}, ()),
    ("/v1/traces", {"resourceSpans": []}, ("message",)),
    ("/v1/logs", {"resourceLogs": []}, ("message",)),
]


@pytest.mark.parametrize(
    ("path", "body", "words"), _TOLD, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_what_rates_and_tells_of_traces_takes_requests_and_no_tokens(
    world: World, path: str, body: Any, words: tuple[str, ...]
) -> None:
    spent = Quota(requests_per_minute=2, tokens_per_day=1)
    async with limited(world, key=spent):
        async with world.store() as store:
            secret = Keys(store).create("app", ["ingest", "rate"])
        client = world.http(None)
        client.headers["authorization"] = f"Bearer {secret}"
        first, _, last = [await client.post(path, json=body) for _ in range(3)]
    assert first.status_code < 429
    assert last.status_code == 429
    assert 20 <= int(last.headers["retry-after"]) <= 30
    said: Any = last.json() if words else last.text
    for name in words:
        said = said[name]
    assert "requests per minute of this key" in said
