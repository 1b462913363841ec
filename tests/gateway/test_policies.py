"""Policies go live only with evidence, and no request notices."""

import asyncio
import shutil
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, World, sse, until
from tests.gateway.fake_vllm import BASE, answer_of

CHAT = "/v1/chat/completions"


async def _states(world: World) -> dict[str, str]:
    data = (await world.http("ops").get("/v1/policies", params={"agent": AGENT})).json()["data"]
    return {policy["policy"]: policy["state"] for policy in data}


async def _answered_by(world: World, model: str = AGENT) -> Any:
    return (
        (await world.http().post(CHAT, json={"model": model, "messages": QUESTION}))
        .json()
        .get("system_fingerprint")
    )


async def test_a_policy_that_passed_goes_live_and_its_steps_are_timed(live: World) -> None:
    policy = await live.evaluated("d1")
    response = await live.promote(policy)
    assert response.status_code == 200
    swap = response.json()
    assert (swap["policy"], swap["previous"]) == (policy, BASE_POLICY)
    assert swap["probe_mean_delta"] == pytest.approx(0) and swap["probe_max_delta"] == pytest.approx(0)
    assert all(swap[step] > 0 for step in ("load_seconds", "probe_seconds", "flip_seconds"))
    assert await _answered_by(live) == policy
    assert live.vllm.adapters == {policy: str(live.folder / "checkpoints" / "d1")}
    assert await _states(live) == {BASE_POLICY: "retired", policy: "active"}
    assert [m.id async for m in live.openai().models.list()][:3] == [AGENT, BASE_POLICY, policy]
    async with live.store() as store:
        await until(lambda: store.policies(AGENT)[policy].state == "active")
        assert [event.by for event in store.policies(AGENT)[policy].history] == ["ops", "ops", "ops"]
        assert store.policies(AGENT)[policy].last.reason == "it passed"


async def test_a_policy_that_has_not_passed_is_not_promoted(live: World) -> None:
    policy, path = live.checkpoint("d1")
    ops = live.http("ops")
    assert (await live.promote(policy)).status_code == 404
    assert (await ops.post("/v1/policies", json={"policy": policy, "path": str(path)})).status_code == 201
    refused = await live.promote(policy)
    assert refused.status_code == 409
    assert "candidate cannot become active" in refused.json()["error"]["message"]
    verdict = {"passed": False, "reasons": ["worse"], "evidence": {}}
    rejected = await ops.post(f"/v1/policies/{policy}/evaluation", json=verdict)
    assert (rejected.json()["state"], rejected.json()["history"][-1]["reason"]) == ("rejected", "worse")
    assert (await live.promote(policy)).status_code == 409
    assert await _answered_by(live) == BASE_POLICY
    assert not live.vllm.loads


async def test_a_policy_that_does_not_score_as_evaluated_is_refused_unloaded_and_rejected(
    live: World,
) -> None:
    policy = await live.evaluated("d1", shift=0.5)
    refused = await live.promote(policy)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "probe_mismatch")
    assert "0.5000" in refused.json()["error"]["message"]
    assert live.vllm.unloads == [policy]
    assert await _states(live) == {BASE_POLICY: "active", policy: "rejected"}
    assert await _answered_by(live) == BASE_POLICY
    history = (await live.http("ops").get("/v1/policies")).json()["data"][1]["history"]
    assert history[-1]["evidence"]["probe_mean_delta"] == pytest.approx(0.5)


async def test_what_is_not_a_complete_checkpoint_of_that_policy_is_not_registered(live: World) -> None:
    ops = live.http("ops")
    policy, path = live.checkpoint("half", complete=False)
    other, other_path = live.checkpoint("whole")
    for body, words in (
        ({"policy": policy, "path": str(path)}, "COMPLETE"),
        ({"policy": policy, "path": str(other_path)}, f"holds {other}"),
        ({"policy": policy, "path": "checkpoints/half"}, "absolute"),
        ({"policy": f"{AGENT}@base-b1", "path": str(other_path)}, "base-"),
        ({"policy": "no such", "path": str(other_path)}, "policy"),
    ):
        response = await ops.post("/v1/policies", json=body)
        assert response.status_code == 400
        assert words in response.json()["error"]["message"]
    unknown = await ops.post("/v1/policies", json={"policy": "nobody@d", "path": str(other_path)})
    assert unknown.status_code == 404
    (other_path / "probes.json").write_text(
        '[{"prompt_token_ids": [1], "completion_token_ids": [2], "logprobs": []}]'
    )
    response = await ops.post("/v1/policies", json={"policy": other, "path": str(other_path)})
    assert response.status_code == 400 and "logprobs" in response.json()["error"]["message"]


async def test_names_and_paths_are_never_reused(live: World) -> None:
    policy = await live.evaluated("d1")
    path = live.folder / "checkpoints" / "d1"
    ops = live.http("ops")
    again = await ops.post("/v1/policies", json={"policy": policy, "path": str(path)})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "path_reused")
    copy = shutil.copytree(path, live.folder / "copy")
    again = await ops.post("/v1/policies", json={"policy": policy, "path": str(copy)})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "policy_state")


async def test_a_rollback_is_only_a_flip_and_the_bad_one_is_unloaded(live: World) -> None:
    first, second = await live.evaluated("d1"), await live.evaluated("d2")
    for policy in (first, second):
        assert (await live.promote(policy)).status_code == 200
    loads = list(live.vllm.loads)
    live.vllm.load_seconds = 60  # whoever asks vLLM now waits
    back = (await live.rollback()).json()
    assert (back["policy"], back["previous"]) == (first, second)
    assert back["flip_seconds"] < 0.5 and back["load_seconds"] == 0
    assert await _answered_by(live) == first
    assert live.vllm.loads == loads
    assert await _states(live) == {BASE_POLICY: "retired", first: "active", second: "rolled_back"}
    await until(lambda: set(live.vllm.adapters) == {first})
    assert (await live.rollback()).json()["policy"] == BASE_POLICY
    nothing = await live.rollback()
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (409, "no_previous_policy")


async def test_what_is_older_than_the_previous_is_unloaded_when_its_requests_are_over(live: World) -> None:
    policies = [await live.evaluated(digest) for digest in ("d1", "d2", "d3")]
    await live.promote(policies[0])
    live.vllm.seconds_per_chunk = 0.15
    slow = asyncio.create_task(_answered_by(live))
    await until(lambda: live.vllm.running)
    await live.promote(policies[1])
    await live.promote(policies[2])
    assert policies[0] in live.vllm.adapters  # still answering
    assert await _answered_by(live, policies[0]) is None  # but no longer to be asked for
    assert await slow == policies[0]
    await until(lambda: set(live.vllm.adapters) == set(policies[1:]))
    assert not live.vllm.used_after_unload


async def test_one_swap_at_a_time(live: World) -> None:
    first, second = await live.evaluated("d1"), await live.evaluated("d2")
    live.vllm.load_seconds = 0.3
    promoting = asyncio.create_task(live.promote(first))
    await asyncio.sleep(0.1)
    for response in (await live.promote(second), await live.rollback()):
        assert (response.status_code, response.json()["error"]["code"]) == (409, "swap_in_progress")
    assert (await promoting).status_code == 200


async def test_promotions_and_rollbacks_under_load_drop_cut_or_mix_no_answer(live: World) -> None:
    policies = [await live.evaluated(f"d{n}") for n in range(4)]
    live.vllm.seconds_per_chunk = 0.004
    texts = {policy: "".join(answer_of(policy)) for policy in policies} | {
        BASE_POLICY: "".join(answer_of(BASE))
    }
    stop, seen, faults = asyncio.Event(), dict.fromkeys(texts, 0), []
    client = live.http()

    async def work(number: int) -> None:
        while not stop.is_set():
            stream = number % 3 > 0
            response = await client.post(CHAT, json={"model": AGENT, "messages": QUESTION, "stream": stream})
            policy, text, complete = _read(response, stream)
            if response.status_code != 200 or not complete or text != texts.get(policy):
                faults.append((response.status_code, policy, response.text))
            else:
                seen[policy] += 1

    workers = [asyncio.create_task(work(number)) for number in range(12)]
    for policy in policies:
        await asyncio.sleep(0.15)
        assert (await live.promote(policy)).status_code == 200
    for _ in range(2):
        await asyncio.sleep(0.15)
        assert (await live.rollback()).status_code == 200
    await asyncio.sleep(0.15)
    stop.set()
    await asyncio.gather(*workers)
    assert not faults[:3]
    assert all(seen.values()), seen
    assert not live.vllm.used_after_unload
    async with live.store() as store:
        await until(lambda: store.counts()["requests"] == sum(seen.values()))


def _read(response: httpx.Response, stream: bool) -> tuple[str, str, bool]:
    policy = response.headers.get("x-policy", "")
    if not stream:
        body = response.json()
        same = body.get("system_fingerprint") == policy
        return policy, body["choices"][0]["message"]["content"], same
    *chunks, done = sse(response.text)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    fingerprints = {chunk["system_fingerprint"] for chunk in chunks}
    return policy, text, done == "[DONE]" and fingerprints == {policy}


async def test_a_restart_keeps_the_active_policy_and_verifies_it_again(world: World) -> None:
    async with world.running():
        first, second = await world.evaluated("d1"), await world.evaluated("d2")
        await world.promote(first)
        await world.promote(second)
    world.vllm.restart()
    async with world.running():
        client = world.http(None)

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await until(ready)
        assert await _answered_by(world) == second
        await until(lambda: set(world.vllm.adapters) == {first, second})
        assert (await world.rollback()).json()["policy"] == first
    async with world.running():  # vLLM goes on this time: nothing has to be loaded
        loads = list(world.vllm.loads)
        await until(lambda: world.gateway and world.gateway.serving.is_ready(first))
        assert world.vllm.loads == loads


async def test_an_active_policy_that_is_not_what_it_was_does_not_answer(world: World) -> None:
    async with world.running():
        await world.promote(await world.evaluated("d1"))
    world.vllm.restart()
    world.vllm.drift = -1.0
    async with world.running():
        await until(lambda: world.gateway and world.gateway.keeper.problems)
        response = await world.http().post(CHAT, json={"model": AGENT, "messages": QUESTION})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "policy_not_loaded")
        ready = (await world.http(None).get("/readyz")).json()
        assert not ready["ready"] and any(
            "not the model that was evaluated" in word for word in ready["missing"]
        )
        assert (await world.rollback()).status_code == 200  # the base model needs no adapter
        assert await _answered_by(world) == BASE_POLICY


async def test_a_gateway_starts_before_vllm_and_is_ready_when_vllm_is(world: World) -> None:
    async with world.running():
        await world.promote(await world.evaluated("d1"))
    world.vllm.restart()
    async with world.vllm.served() as late:  # a port that is free again afterwards
        port = int(late.url.rpartition(":")[2])
    async with world.running(vllm_url=f"http://127.0.0.1:{port}"):
        client = world.http(None)
        assert (await client.get("/readyz")).status_code == 503

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        async with world.vllm.served(port):
            await until(ready)
            assert await _answered_by(world) == f"{AGENT}@d1"


async def test_an_adapter_that_vllm_has_forgotten_is_loaded_again(live: World) -> None:
    policy = await live.evaluated("d1")
    await live.promote(policy)
    live.vllm.restart()
    response = await live.http().post(CHAT, json={"model": AGENT, "messages": QUESTION})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "policy_not_loaded")
    assert response.headers["retry-after"]

    async def answered() -> bool:
        return bool(await _answered_by(live) == policy)

    await until(answered, 3)


async def test_what_an_earlier_gateway_left_loaded_is_cleared_away_but_a_candidate_is_not(
    world: World,
) -> None:
    async with world.running():
        first = await world.evaluated("d1")
        await world.promote(first)
        candidate, path = world.checkpoint("c1")
        await world.http("ops").post("/v1/policies", json={"policy": candidate, "path": str(path)})
        assert (await world.rollback()).status_code == 200
        await until(lambda: not world.vllm.adapters)
    world.vllm.adapters |= {
        first: str(world.folder / "checkpoints" / "d1"),
        candidate: str(path),
        "other": "/x",
    }
    async with world.running():
        await until(lambda: set(world.vllm.adapters) == {candidate, "other"})


async def test_a_swap_with_a_dead_vllm_changes_nothing(live: World, monkeypatch: Any) -> None:
    policy = await live.evaluated("d1")
    gateway = live.gateway
    assert gateway is not None
    monkeypatch.setattr(gateway.pool.replicas[0], "_url", "http://127.0.0.1:9")
    assert (await live.promote(policy)).status_code == 503
    monkeypatch.undo()
    assert await _answered_by(live) == BASE_POLICY
    assert (await _states(live))[policy] == "evaluated"


async def test_the_status_says_how_the_gateway_is_doing(live: World) -> None:
    await live.promote(await live.evaluated("d1"))
    live.vllm.seconds_per_chunk = 0.1
    asking = asyncio.create_task(_answered_by(live))
    await until(lambda: live.vllm.running)
    status = (await live.http("ops").get("/v1/status")).json()
    assert status["agents"][AGENT] == {
        "active": f"{AGENT}@d1",
        "previous": BASE_POLICY,
        "loaded": [BASE_POLICY, f"{AGENT}@d1"],
        "in_flight": {f"{AGENT}@d1": 1},
    }
    assert status["outbox"].keys() == {"depth", "oldest_age_seconds"}
    assert status["store"] == {"requests": 0, "ratings": 0, "dead_letters": 0}
    await asking
    assert (await live.http("ann").get("/v1/status")).status_code == 403


async def test_scores_that_are_no_numbers_are_no_verdict_and_the_policy_may_be_tried_again(
    live: World,
) -> None:
    policy = await live.evaluated("d1")
    live.vllm.drift = float("nan")
    refused = await live.promote(policy)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_unavailable")
    assert (await _states(live))[policy] == "evaluated"
    assert not live.vllm.adapters
    live.vllm.drift = 0.0
    assert (await live.promote(policy)).status_code == 200
