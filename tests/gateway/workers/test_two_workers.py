"""Two workers of one gateway, here in one process and each with an address of its own, are one gateway to everybody."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from feedback.events import RequestFinished
from feedback.outbox import Outbox
from feedback.outboxes import left_over, path_of
from feedback.quota import Quota
from feedback.store import Keys
from gateway.limits.config import LimitsConfig
from gateway.limits.rates import Rate
from gateway.workers.place import Place
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, TEXT, World, sse, until
from tests.gateway.fake_vllm import BASE, answer_of
from tests.gateway.test_metrics import scrape

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
GOOD = {"model": AGENT, "messages": QUESTION}


class Pair(NamedTuple):
    leader: World
    other: World


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: that of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def other_than(world: World) -> World:
    return replace(world, _clients=[])


@pytest.fixture
async def pair(world: World, folder: Path) -> AsyncIterator[Pair]:
    other = other_than(world)
    async with world.running(Place(0, 2, folder, 7)), other.running(Place(1, 2, folder, 7)):
        yield Pair(world, other)


async def answered_by(world: World, model: str = AGENT) -> str:
    response = await world.http().post(CHAT, json={"model": model, "messages": QUESTION})
    assert response.status_code == 200, response.text
    return str(response.json()["system_fingerprint"])


@contextmanager
def store_that_takes_nothing(world: World) -> Iterator[None]:
    """Events stay in the outboxes meanwhile."""
    store = sqlite3.connect(world.folder / "store.db", isolation_level=None)
    store.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        store.execute("ROLLBACK")
        store.close()


async def test_whoever_is_asked_to_promote_every_worker_serves_it_when_that_is_answered(pair: Pair) -> None:
    first, second = await pair.other.evaluated("d1"), await pair.leader.evaluated("d2")
    for asked, policy in ((pair.other, first), (pair.leader, second)):
        swap = await asked.promote(policy)
        assert swap.status_code == 200 and swap.json()["policy"] == policy
        assert [await answered_by(world) for world in pair] == [policy, policy]
    assert (await pair.other.rollback()).json()["policy"] == first
    assert [await answered_by(world) for world in pair] == [first, first]
    for path in ("/v1/policies", "/v1/models"):
        said = [(await world.http("ops").get(path)).json() for world in pair]
        assert said[0] == said[1]
    assert pair.leader.vllm.loads == [first, second]  # one worker alone moves policies
    async with pair.leader.store() as store:
        await until(lambda: store.policies(AGENT)[second].state == "rolled_back")
        assert len(store.policies(AGENT)[BASE_POLICY].history) == 1


async def test_a_change_that_is_passed_on_needs_the_callers_own_right_and_is_refused_in_the_same_words(
    pair: Pair,
) -> None:
    for who, path, body in (
        ("ann", f"/v1/policies/{AGENT}@d1/promote", {"reason": "mine"}),
        (None, "/v1/status", None),
        ("ops", "/v1/policies", {"policy": "no such", "path": "/x"}),
        ("ops", f"/v1/policies/{AGENT}%40d1/promote", {"reason": "it is not registered"}),
        ("ops", "/v1/policies?agent=nobody", None),
        ("ops", "/v1/agents/none/rollback", {"reason": "x" * 2_000_000}),
    ):
        seen = []
        for world in pair:
            client = world.http(who)
            response = await (client.get(path) if body is None else client.post(path, json=body))
            seen.append((response.status_code, response.json(), response.headers.get("www-authenticate")))
        assert seen[0] == seen[1] and seen[0][0] >= 400
    moved = await pair.other.http("ops").get("/v1/policies/")
    assert (moved.status_code, moved.headers["location"]) == (307, f"{pair.other.url}/v1/policies")


async def test_promotions_and_rollbacks_under_load_on_both_drop_cut_or_mix_no_answer(pair: Pair) -> None:
    policies = [await pair.leader.evaluated(f"d{n}") for n in range(3)]
    pair.leader.vllm.seconds_per_chunk = 0.004
    texts = {policy: "".join(answer_of(policy)) for policy in policies} | {
        BASE_POLICY: "".join(answer_of(BASE))
    }
    clients = [world.http() for world in pair]
    stop, seen, faults = asyncio.Event(), [dict.fromkeys(texts, 0) for _ in pair], []

    async def work(number: int) -> None:
        while not stop.is_set():
            response = await clients[number % 2].post(CHAT, json={**GOOD, "stream": True})
            chunks = sse(response.text)
            text = "".join(
                chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1] if "choices" in chunk
            )
            policy = response.headers.get("x-policy", "")
            if response.status_code != 200 or chunks[-1] != "[DONE]" or text != texts.get(policy):
                faults.append((response.status_code, policy, response.text))
            else:
                seen[number % 2][policy] += 1

    workers = [asyncio.create_task(work(number)) for number in range(12)]
    for policy in policies:
        await asyncio.sleep(0.15)
        assert (await pair.other.promote(policy)).status_code == 200
    for _ in range(2):
        await asyncio.sleep(0.15)
        assert (await pair.other.rollback()).status_code == 200
    await asyncio.sleep(0.15)
    stop.set()
    await asyncio.gather(*workers)
    assert not faults[:3]
    assert all(count for counts in seen for count in counts.values()), seen
    assert not pair.leader.vllm.used_after_unload


async def test_a_policy_is_unloaded_only_when_no_worker_has_a_request_running_on_it(pair: Pair) -> None:
    policies = [await pair.leader.evaluated(digest) for digest in ("d1", "d2", "d3")]
    await pair.leader.promote(policies[0])
    vllm = pair.leader.vllm
    vllm.seconds_per_chunk = 0.15
    slow = asyncio.create_task(answered_by(pair.other))
    await until(lambda: vllm.running)
    await pair.leader.promote(policies[1])
    await pair.leader.promote(policies[2])
    assert policies[0] in vllm.adapters  # the other worker is still answering with it
    gone = await pair.other.http().post(CHAT, json={**GOOD, "model": policies[0]})
    assert gone.status_code == 404  # but nobody can ask for it any more
    assert await slow == policies[0]
    await until(lambda: set(vllm.adapters) == set(policies[1:]))
    assert not vllm.used_after_unload


async def test_an_answer_of_the_other_worker_can_be_rated_continued_and_deleted_before_it_has_landed(
    pair: Pair,
) -> None:
    giver, taker = pair.other.http(), pair.leader.http()
    with store_that_takes_nothing(pair.leader):
        answer = (await giver.post(CHAT, json=GOOD)).json()
        rated = await taker.post("/v1/feedback", json={"request_id": answer["id"], "value": True})
        assert rated.status_code == 200
        made = (await giver.post(RESPONSES, json={"model": AGENT, "input": TEXT})).json()
        again = await taker.get(f"{RESPONSES}/{made['id']}")
        assert again.status_code == 200 and again.json()["output"] == made["output"]
        further = {"model": AGENT, "input": "And closed?", "previous_response_id": made["id"]}
        assert (await taker.post(RESPONSES, json=further)).status_code == 200
        stranger = await pair.leader.http("eve").get(f"{RESPONSES}/{made['id']}")
        assert stranger.status_code == 404
        unknown = await taker.post("/v1/feedback", json={"request_id": "chatcmpl-none", "value": True})
        assert unknown.status_code == 404
    assert (await taker.delete(f"{RESPONSES}/{made['id']}")).status_code == 200
    assert (await giver.get(f"{RESPONSES}/{made['id']}")).status_code == 404
    await pair.leader.recorded(answer["id"])


async def test_a_request_that_is_repeated_at_the_other_worker_gets_the_answer_that_it_had(pair: Pair) -> None:
    key = {"idempotency-key": "k1"}
    first, second = [await world.http().post(CHAT, json=GOOD, headers=key) for world in pair]
    assert first.json() == second.json() and second.headers["idempotency-replayed"] == "true"
    assert len(pair.leader.vllm.requests) == 1


async def test_a_key_that_is_revoked_at_one_worker_is_refused_by_the_other_at_once(pair: Pair) -> None:
    admin = pair.leader.http("adm")
    made = (await admin.post("/v1/keys", json={"owner": "tim"})).json()
    tim = {"authorization": f"Bearer {made['key']}"}
    assert (await pair.other.http(None).get("/v1/models", headers=tim)).status_code == 200
    assert (await admin.delete(f"/v1/keys/{made['id']}")).status_code == 200
    refused = await pair.other.http(None).get("/v1/models", headers=tim)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "revoked_api_key")


async def test_an_adapter_that_vllm_has_forgotten_is_restored_whichever_worker_notices(pair: Pair) -> None:
    policy = await pair.leader.evaluated("d1")
    await pair.leader.promote(policy)
    pair.leader.vllm.load_seconds = 0.3
    pair.leader.vllm.restart()
    client, missed = pair.other.http(), []

    async def answered() -> bool:
        response = await client.post(CHAT, json=GOOD)
        if response.status_code != 200:
            missed.append((response.status_code, response.json()["error"]["code"]))
        return response.status_code == 200

    await until(answered)
    assert set(missed) == {(503, "policy_not_loaded")}
    assert pair.leader.vllm.loads == [policy, policy]


async def test_a_worker_that_starts_late_serves_what_the_others_do_from_its_first_answer_on(
    world: World, folder: Path
) -> None:
    async with world.running(Place(0, 2, folder)):
        ready = await world.http(None).get("/readyz")
        assert ready.status_code == 503 and ready.json()["missing"][0].startswith("worker 1 does not answer")
        policy = await world.evaluated("d1")
        assert (await world.promote(policy)).status_code == 200  # nobody is waited for who is not there
        other = other_than(world)
        async with other.running(Place(1, 2, folder)):
            assert await answered_by(other) == policy
            for one in (world, other):
                assert (await one.http(None).get("/readyz")).status_code == 200


async def test_without_the_leader_requests_go_on_and_when_it_returns_policies_move_again(
    world: World, folder: Path
) -> None:
    other = other_than(world)
    async with world.running(Place(0, 2, folder)):
        # The other outlives the leader: it ends when this block has.
        running = other.running(Place(1, 2, folder))
        await running.__aenter__()
        first, second = await world.evaluated("d1"), await world.evaluated("d2")
        await world.promote(first)
    assert await answered_by(other) == first
    refused = await other.promote(second)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "leader_unavailable")
    assert (await other.http(None).get("/readyz")).status_code == 503
    async with world.running(Place(0, 2, folder)):
        assert await answered_by(other) == first
        assert (await other.promote(second)).status_code == 200
        assert [await answered_by(one) for one in (world, other)] == [second, second]
        await running.__aexit__(None, None, None)


async def test_the_status_counts_what_all_workers_do(pair: Pair) -> None:
    pair.leader.vllm.seconds_per_chunk = 0.1
    asking = [asyncio.create_task(answered_by(world)) for world in pair]
    await until(lambda: pair.leader.vllm.running == 2)
    status = (await pair.other.http("ops").get("/v1/status")).json()
    assert status["agents"][AGENT]["in_flight"] == {BASE_POLICY: 2}
    assert [server["outstanding"] for server in status["replicas"].values()] == [2]
    assert set(status["workers"]) == {"0", "1"}
    await asyncio.gather(*asking)
    status = (await pair.other.http("ops").get("/v1/status")).json()
    assert [worker["recorded"] for worker in status["workers"].values()] == [1, 1]


async def test_a_request_that_is_passed_on_is_counted_once_by_who_answered(pair: Pair) -> None:
    assert (await pair.other.http("ops").get("/v1/status")).status_code == 200
    assert (await pair.other.http(None).get("/v1/status")).status_code == 401
    counted = [
        (await scrape(world))("http_server_request_duration_seconds_count", http_route=route)
        for world in pair
        for route in ("/v1/status", "other")
    ]
    assert counted == [2, 0, 0, 0]


async def test_limits_of_the_machine_are_shared_out(world: World, folder: Path) -> None:
    other = other_than(world)
    limits = {"max_concurrent": 3}
    async with world.running(Place(0, 2, folder), **limits), other.running(Place(1, 2, folder), **limits):
        world.vllm.seconds_per_chunk = 0.1
        sent = [
            asyncio.create_task(one.http().post(CHAT, json=GOOD)) for one in (world, other) for _ in range(3)
        ]
        codes = [(await task).status_code for task in sent]
    assert sorted(codes[:3]) == [200, 200, 429] and sorted(codes[3:]) == [200, 429, 429]


async def test_rates_are_those_of_all_workers_together_and_what_is_settled_counts_for_all(
    world: World, folder: Path
) -> None:
    other = other_than(world)
    limits = LimitsConfig(key=Quota(requests_per_minute=5, tokens_per_minute=10_000))
    async with (
        world.running(Place(0, 2, folder), limits=limits),
        other.running(Place(1, 2, folder), limits=limits),
    ):
        answers = [await one.http().post(CHAT, json=GOOD) for one in (other, world, other, other, world)]
        left = [response.headers["x-ratelimit-remaining-requests"] for response in answers]
        assert left == ["4", "3", "2", "1", "0"]
        for one in (world, other):
            refused = await one.http().post(CHAT, json=GOOD)
            assert refused.status_code == 429 and float(refused.headers["retry-after"]) > 0

        def full() -> bool:
            """Each of the five was taken for a long answer, and took few tokens."""
            assert world.gateway is not None
            rate = Rate(f"{{default}}:key:{key}:tokens", "tokens", 10_000, "key")
            return rate.remaining(world.gateway.limits.rates.take([rate], [0]).full_in[0]) > 9_900

        async with world.store() as store:
            key = next(key.id for key in Keys(store).of_tenant("default") if key.owner == "ann")
        await until(full)


async def test_what_more_workers_left_behind_is_in_the_store_before_fewer_are_ready(world: World) -> None:
    left = Outbox(path_of(world.config.outbox_path, 3))
    event = RequestFinished(
        tenant="default",
        request_id="chatcmpl-left",
        episode_id="e",
        agent=AGENT,
        policy=BASE_POLICY,
        caller="ann",
        input=(),
        output="{}",
        status="completed",
        latency=0.1,
    )
    await left.append(event)
    left.close()
    async with world.running(), world.store() as store:
        assert store.request("chatcmpl-left", "default") == event


def test_the_parts_of_a_limit_add_up_to_it() -> None:
    for count in (1, 2, 3, 8):
        assert sum(Place(number, count).share(10) for number in range(count)) == 10


def test_only_outboxes_of_workers_that_there_are_no_more_are_left_over(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    assert path_of(path, 0) == path
    for number in range(4):
        path_of(path, number).touch()
    (tmp_path / "outbox-old.db").touch()
    assert left_over(path, 2) == [path_of(path, 2), path_of(path, 3)]
