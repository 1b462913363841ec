"""Several vLLM servers behind one gateway: who gets a request, and what happens when one of them fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from agents.model import ModelRequest
from feedback.events import Message, ModelCall, Sampling
from gateway.errors import ApiError
from gateway.pool import Pool, PooledModel
from gateway.replica import Replica
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, World, until
from tests.gateway.fake_vllm import BASE, FakeVllm, answer_of
from tools.tool import ToolSpec

CHAT = "/v1/chat/completions"
GOOD = {"model": AGENT, "messages": QUESTION}


def _pool(count: int = 3, limit: int = 100) -> Pool:
    session: Any = None  # nothing is asked of the servers
    return Pool([Replica(session, f"http://10.0.0.{n}:8000") for n in range(count)], limit=limit)


def test_requests_that_begin_alike_go_to_one_server_while_it_is_about_as_free_as_the_others():
    pool = _pool()
    chosen = set()
    for _ in range(20):
        replica = pool.enter(None, b"the same system prompt")
        pool.leave(replica)
        chosen.add(replica)
    assert len(chosen) == 1
    spread = {pool.enter(None, b"prompt %d" % n) for n in range(30)}
    assert spread == set(pool.replicas)


def test_a_busier_server_is_passed_over_whatever_it_has_cached():
    pool = _pool()
    for _ in range(30):
        pool.enter(None, b"the same system prompt")
    assert max(r.outstanding for r in pool.replicas) - min(r.outstanding for r in pool.replicas) <= 3


def test_when_a_server_leaves_only_its_own_prefixes_move():
    pool = _pool()
    prefixes = [b"prompt %d" % n for n in range(50)]

    def homes() -> dict[bytes, Replica]:
        found = {}
        for prefix in prefixes:
            found[prefix] = pool.enter(None, prefix)
            pool.leave(found[prefix])
        return found

    before = homes()
    gone = pool.replicas[0]
    for _ in range(3):
        gone.outstanding += 1
        pool.leave(gone, failed=True)
    assert not pool.in_rotation(gone)
    after = homes()
    assert gone not in after.values()
    assert all(after[prefix] == home for prefix, home in before.items() if home != gone)


def test_when_all_have_as_much_as_they_take_it_is_429_with_a_time_to_come_back():
    pool = _pool(count=2, limit=2)
    for n in range(4):
        pool.enter(None, b"%d" % n)
    with pytest.raises(ApiError) as refused:
        pool.enter(None, b"")
    assert (refused.value.status, refused.value.retry_after) == (429, 1)


def test_a_policy_is_asked_only_where_it_has_been_verified():
    pool = _pool()
    pool.replicas[1].verified.add("a@1")
    assert {pool.enter("a@1", b"%d" % n) for n in range(9)} == {pool.replicas[1]}
    with pytest.raises(ApiError) as refused:
        pool.enter("a@2", b"")
    assert (refused.value.status, refused.value.code) == (503, "policy_not_loaded")


@asynccontextmanager
async def _two(world: World, **changes: Any) -> AsyncIterator[FakeVllm]:
    """The gateway with a second server beside the world's."""
    async with FakeVllm().served() as second, world.running(more_vllm_urls=(second.url,), **changes):
        yield second


async def test_a_promotion_loads_and_verifies_on_every_server(world: World) -> None:
    async with _two(world) as second:
        policy = await world.evaluated("d1")
        assert (await world.promote(policy)).status_code == 200
        assert world.vllm.loads == second.loads == [policy]
        answers = [await world.http().post(CHAT, json=_asking(n)) for n in range(12)]
        assert {answer.headers["x-policy"] for answer in answers} == {policy}
        assert world.vllm.requests and second.requests


def _asking(number: int) -> dict[str, Any]:
    return {**GOOD, "messages": [{"role": "user", "content": f"Question {number}"}]}


async def test_one_server_that_scores_otherwise_refuses_the_policy_for_all(world: World) -> None:
    async with _two(world) as second:
        policy = await world.evaluated("d1")
        second.drift = 1.0
        refused = await world.promote(policy)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "probe_mismatch")
        assert not world.vllm.adapters and not second.adapters
        answer = await world.http().post(CHAT, json=GOOD)
        assert answer.headers["x-policy"] == BASE_POLICY


async def test_no_request_fails_when_a_server_dies_and_it_is_used_again_when_it_is_back(world: World) -> None:
    async with FakeVllm().served() as gone:
        url = gone.url
    async with world.running(more_vllm_urls=(url,)):
        gateway = world.gateway
        assert gateway is not None
        second = gateway.pool.replicas[1]
        answers = await asyncio.gather(*(world.http().post(CHAT, json=_asking(n)) for n in range(16)))
        assert {answer.status_code for answer in answers} == {200}
        await until(lambda: not gateway.pool.in_rotation(second))
        async with FakeVllm().served(urlsplit(url).port or 0) as returned:

            async def back() -> bool:
                await gateway.pool.probe()
                return gateway.pool.in_rotation(second)

            await until(back)
            await asyncio.gather(*(world.http().post(CHAT, json=_asking(n)) for n in range(16)))
            assert returned.requests


async def test_a_server_that_returns_gets_the_policy_before_it_gets_requests_for_it(world: World) -> None:
    async with _two(world) as second:
        policy = await world.evaluated("d1")
        await world.promote(policy)
        second.restart()
        answers = [await world.http().post(CHAT, json=_asking(n)) for n in range(12)]
        assert {(a.status_code, a.headers["x-policy"]) for a in answers} == {(200, policy)}
        assert world.gateway is not None
        world.gateway.keeper.suspect()
        await until(lambda: second.adapters)
        assert not second.used_after_unload


async def test_tools_reach_the_server_and_what_it_calls_comes_back_with_every_token():
    made = {
        "id": "a",
        "type": "function",
        "function": {"name": "run_sql", "arguments": '{"sql": "SELECT 1"}'},
    }
    messages = (Message(role="user", content="How many?"),)
    request = ModelRequest(messages, None, Sampling(), tools=(ToolSpec("run_sql", "Runs a query.", {}),))
    async with FakeVllm().served() as vllm, aiohttp.ClientSession() as session:
        vllm.tool_calls = (made,)
        pool = Pool([Replica(session, vllm.url)], limit=1)
        model = PooledModel(pool, session, name=BASE, policy=BASE_POLICY, base=True, headers=dict)
        *_, call = [part async for part in model.stream(request)]
    assert isinstance(call, ModelCall)
    assert [tool["function"]["name"] for tool in vllm.requests[0]["tools"]] == ["run_sql"]
    assert (call.tool_calls, call.finish_reason) == ((made,), "tool_calls")
    assert len(call.completion_token_ids) == len(answer_of(BASE))
