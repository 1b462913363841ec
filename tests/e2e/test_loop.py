"""The loop turns on the real thing: vLLM's CPU build, the gateway as a process, the trainer as a process.

The tests of this file run in their order, each on what the one before has left: as the data flows.
"""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from safetensors.torch import load_file, save_file

from deploy import curate, employees, insurer, jobs, keys, load, training
from deploy.client import AsyncClient
from deploy.errors import FlywheelError
from domains.insurance.questions import questions
from feedback.events import ModelCall, RequestFinished
from feedback.store import Store
from tests.e2e.conftest import Live
from tools.sql import Database
from trainer.config import TrainerConfig
from trainer.tasks import write

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

AGENT = "sql-analyst"
_VISITS = 24


def openai(live: Live) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{live.system.base_url}/v1", api_key=live.system.key, max_retries=0)


async def landed(live: Live) -> None:
    """Wait until the outbox is empty."""
    async with AsyncClient(live.system.base_url, live.system.key) as client:
        while (await client.get("/v1/status"))["outbox"]["depth"]:
            await asyncio.sleep(0.05)


def stored(live: Live, request_id: str) -> RequestFinished:
    store = Store.open(live.settings.feedback.store_url)
    try:
        event = store.request(request_id, "default")
    finally:
        store.close()
    assert event is not None
    return event


def model_call(event: RequestFinished) -> ModelCall:
    return next(call for call in event.calls if isinstance(call, ModelCall))


async def test_an_openai_client_gets_a_structured_answer(live: Live) -> None:
    async with openai(live) as client:
        answer = await client.chat.completions.create(
            model=AGENT, messages=[{"role": "user", "content": "How many claims are open?"}]
        )
    text = answer.choices[0].message.content or ""
    assert text.startswith(('{"sql":"', '{"refusal":"')), "the trainer teaches this form, without blanks"
    assert answer.system_fingerprint and answer.system_fingerprint.startswith("sql-analyst@base-")


async def test_streamed_and_whole_answers_are_the_same_and_captured_exactly(live: Live) -> None:
    """Ids and logprobs are the server's own: as many as the usage says, and the same in both modes."""
    messages: Any = [{"role": "user", "content": "What is the average premium of boat policies?"}]
    async with openai(live) as client:
        whole = await client.chat.completions.create(model=AGENT, messages=messages)
        stream = await client.chat.completions.create(
            model=AGENT, messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    await landed(live)
    one, other = model_call(stored(live, whole.id)), model_call(stored(live, chunks[0].id))
    assert whole.usage is not None
    assert len(one.prompt_token_ids) == whole.usage.prompt_tokens
    assert len(one.completion_token_ids) == len(one.logprobs) == whole.usage.completion_tokens
    assert one.completion_token_ids == other.completion_token_ids
    assert one.logprobs == pytest.approx(other.logprobs, abs=0.2)  # bf16, in batches of other sizes
    assert all(logprob <= 1e-3 for logprob in one.logprobs)


async def test_a_prompt_longer_than_the_context_is_refused_in_openais_form(live: Live) -> None:
    question = "7" * 7_900  # each digit is a token
    async with openai(live) as client:
        with pytest.raises(BadRequestError, match="context") as refused:
            await client.chat.completions.create(
                model=AGENT, messages=[{"role": "user", "content": question}]
            )
    assert refused.value.code == "context_length_exceeded"


async def test_an_unknown_model_is_404_and_names_those_that_exist(live: Live) -> None:
    async with openai(live) as client:
        with pytest.raises(NotFoundError, match="sql-analyst"):
            await client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])


async def test_ratings_become_a_policy_that_serves(live: Live) -> None:
    """Employees rate, curation filters, the trainer publishes, the gate judges, the swap drops nothing."""
    settings, system = live.settings, live.system
    production = Database(settings.sql.databases[0])
    with keys.opened(settings) as store:
        secrets = {name: store.create(name, ("invoke", "rate")) for name in employees.NAMES}
    visits = employees.plan(questions("train"), seed=1)[:_VISITS]
    counts = await employees.work(
        f"{system.base_url}/v1", secrets, visits, agent=AGENT, production=production, done=lambda: None
    )
    assert counts["asked"] == _VISITS
    await landed(live)
    dataset = curate.make(settings, AGENT)
    used = sum(sample.support for sample in dataset.curated.samples)
    assert used + sum(dataset.curated.rejected.values()) >= _VISITS, "every rating is used or counted"

    config = training.trainer_config(settings, agent=AGENT, dataset=dataset.path, seed=0)
    seen: list[dict[str, Any]] = []
    result = await jobs.run(settings, "train", config, config.run_dir, seen.append)
    assert {record["stage"] for record in seen} == {"supervised", "reinforced"}
    rewards = [record["reward"] for record in seen if "reward" in record]
    assert len(rewards) == config.grpo.steps

    policy = result["trained"]
    await _contest(live, policy)
    await _swap(live, policy)


async def _contest(live: Live, policy: str) -> None:
    """The gate refuses a policy of two steps on ten questions, and what it refuses cannot be promoted."""
    settings, system = live.settings, live.system
    write(settings.evaluation.tasks, insurer.tasks("dev")[:10])
    manifest = training.checkpoint_manifest(settings, policy)
    base = f"{AGENT}@base-{manifest['base_digest']}"
    config = TrainerConfig.model_validate(manifest["run"])
    contest = training.contest_config(settings, config, manifest, active=base)
    await jobs.run(settings, "evaluate", contest, contest.reports, lambda _: None)
    reports = training.load_reports(contest)
    assert list(reports) == ["base", "base_few_shot", "supervised", "trained"]
    verdict = training.judge_candidate(reports, active=base)
    assert not verdict.passed, "ten tasks are too few for any verdict but no"
    async with AsyncClient(system.base_url, system.key) as client:
        await training.register(client, settings, manifest["parent"])
        await training.tell_verdict(client, manifest["parent"], verdict, reports)
        with pytest.raises(FlywheelError, match="rejected"):
            await client.post(f"/v1/policies/{manifest['parent']}/promote", {"reason": "no"})
        await training.register(client, settings, policy)
        forced = verdict.model_copy(update={"passed": True})  # the swap is tested next, not the learning
        await training.tell_verdict(client, policy, forced, reports)


async def _swap(live: Live, policy: str) -> None:
    """Promotion and roll-back under a load of streams: none failed, truncated or mixed; probes agree with vLLM."""
    asked = [question.text for question in questions("dev")]
    url = f"/v1/policies/{policy}/promote"
    async with (
        AsyncClient(live.system.base_url, live.system.key) as client,
        load.running(
            f"{live.system.base_url}/v1", live.system.key, agent=AGENT, questions=asked, concurrency=4
        ) as streams,
    ):
        await streams.settle(4)
        swap = await client.post(url, {"reason": "test"})
        await streams.settle(6)
        await client.post(f"/v1/agents/{AGENT}/rollback", {"reason": "test"})
        await streams.settle(6)
    assert swap["probe_mean_delta"] < 0.15
    assert [one.error for one in streams.answered if one.error] == []
    assert {len(one.policies) for one in streams.answered} == {1}
    assert {one.policies[0] for one in streams.answered} == {policy, swap["previous"]}


async def test_probes_of_other_weights_are_refused(live: Live, tmp_path: Path) -> None:
    """A checkpoint whose probes were scored by other weights than it holds is not let into service."""
    real = next((live.settings.var / "checkpoints").iterdir())
    fake = tmp_path / "0123456789ab"
    shutil.copytree(real, fake)
    manifest = json.loads((fake / "manifest.json").read_text())
    policy = f"{AGENT}@{fake.name}"
    (fake / "manifest.json").write_text(json.dumps(manifest | {"policy": policy}))
    probes = json.loads((fake / "probes.json").read_text())
    for probe in probes:
        probe["logprobs"] = [logprob - 1.0 for logprob in probe["logprobs"]]
    (fake / "probes.json").write_text(json.dumps(probes))
    async with AsyncClient(live.system.base_url, live.system.key) as client:
        await client.post("/v1/policies", {"policy": policy, "path": str(fake), "evidence": {}})
        await client.post(
            f"/v1/policies/{policy}/evaluation", {"passed": True, "reasons": [], "evidence": {}}
        )
        before = (await client.get("/v1/status"))["agents"][AGENT]["active"]
        with pytest.raises(FlywheelError, match="not the model that was evaluated"):
            await client.post(f"/v1/policies/{policy}/promote", {"reason": "test"})
        assert (await client.get("/v1/status"))["agents"][AGENT]["active"] == before


async def test_the_base_model_is_itself_beside_as_many_adapters_as_fit(live: Live, tmp_path: Path) -> None:
    """vLLM's own operators for a CPU gave it the adapter in the last slot (`deploy/vllm_plugin.py`)."""
    loud = tmp_path / "loud"
    shutil.copytree(next((live.settings.var / "checkpoints").iterdir()), loud)
    weights = load_file(loud / "adapter_model.safetensors")
    chance = torch.Generator().manual_seed(0)  # else they are now and then too quiet to be told apart
    for name in (name for name in weights if "lora_B" in name):
        weights[name] = (torch.randn(weights[name].shape, generator=chance) * 0.3).to(weights[name].dtype)
    save_file(weights, loud / "adapter_model.safetensors")
    names = [f"loud-{number}" for number in range(live.settings.vllm.max_loras)]

    async with aiohttp.ClientSession(live.system.vllm_url, raise_for_status=True) as session:

        async def count(model: str, tokens: int) -> list[float]:
            """How sure `model` is of what it counts on with, token by token."""
            body = {"model": model, "prompt": "1 2 3 4 5 6 7 8 9", "max_tokens": tokens}
            body |= {"temperature": 0, "logprobs": 0, "ignore_eos": True}
            async with session.post("/v1/completions", json=body) as answer:
                logprobs: list[float] = (await answer.json())["choices"][0]["logprobs"]["token_logprobs"]
            return logprobs

        async def tell(path: str, **body: str) -> None:
            async with session.post(path, json=body) as answer:
                await answer.read()

        alone = await count(live.settings.vllm.served_name, 8)
        for name in names:
            await tell("/v1/load_lora_adapter", lora_name=name, lora_path=str(loud))
        try:
            asked = [asyncio.create_task(count(name, 48)) for name in names]
            await asyncio.sleep(0.5)  # they are being answered: the next one comes into their batch
            beside = await count(live.settings.vllm.served_name, 8)
            changed = await asyncio.gather(*asked)
        finally:
            for name in names:
                await tell("/v1/unload_lora_adapter", lora_name=name)
    assert beside == pytest.approx(alone, abs=0.3)  # bf16, in batches of other sizes
    for logprobs in changed:
        assert logprobs[:8] != pytest.approx(alone, abs=0.3), (
            "the adapters do nothing: the test shows nothing"
        )
