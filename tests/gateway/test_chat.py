"""An OpenAI client talks to an agent, and everything is recorded as the model saw it."""

import asyncio
import sqlite3
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessageParam

from feedback.events import ModelCall
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, TEXT, World, client_that_leaves, sse, until
from tests.gateway.fake_vllm import BASE, answer_of, logprob_of, prompt_of, token_of

CHAT = "/v1/chat/completions"
ANSWER = "".join(answer_of(BASE))


async def test_a_whole_answer_is_what_an_openai_client_expects(live: World) -> None:
    raw = await live.openai().chat.completions.with_raw_response.create(
        model=AGENT, messages=QUESTION, max_tokens=20, metadata={"app": "t"}, user="u1", store=True
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.model, answer.object, answer.system_fingerprint) == (AGENT, "chat.completion", BASE_POLICY)
    assert (
        answer.usage
        and answer.usage.prompt_tokens == 2
        and answer.usage.completion_tokens == len(answer_of(BASE))
    )
    assert raw.headers["x-request-id"] == answer.id
    assert raw.headers["x-policy"] == BASE_POLICY
    assert raw.headers["x-episode-id"].startswith("ep-")


async def test_a_streamed_answer_is_framed_as_openai_frames_it(live: World) -> None:
    body = {"model": AGENT, "messages": QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    response = await live.http().post(CHAT, json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done = sse(response.text)
    assert done == "[DONE]"
    role, *deltas, finish, usage = chunks
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in deltas) == ANSWER
    assert len(deltas) == len(answer_of(BASE))  # as they come from the loop, not in one piece
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "stop")
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == len(answer_of(BASE))
    assert all(chunk["usage"] is None for chunk in [role, *deltas, finish])
    assert (
        {chunk["system_fingerprint"] for chunk in chunks} == {BASE_POLICY} == {response.headers["x-policy"]}
    )
    assert {chunk["id"] for chunk in chunks} == {response.headers["x-request-id"]}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


async def test_the_openai_client_reads_the_stream(live: World) -> None:
    stream = await live.openai().chat.completions.create(model=AGENT, messages=QUESTION, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_an_answer_can_be_sent_back_as_the_next_turn(live: World) -> None:
    client = live.openai()
    first = await client.chat.completions.create(model=AGENT, messages=QUESTION)
    own: Any = first.choices[0].message  # as most clients do, the whole object
    again: ChatCompletionMessageParam = {"role": "user", "content": [{"type": "text", "text": "Sure?"}]}
    second = await client.chat.completions.create(model=AGENT, messages=[*QUESTION, own, again])
    recorded = await live.recorded(second.id)
    assert [(message.role, message.content) for message in recorded.input] == [
        ("user", TEXT),
        ("assistant", ANSWER),
        ("user", "Sure?"),
    ]


async def test_a_request_is_recorded_with_the_servers_own_ids_and_logprobs(live: World) -> None:
    headers = {"x-episode-id": "case-7", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    raw = await live.openai().chat.completions.with_raw_response.create(
        model=AGENT,
        messages=QUESTION,
        temperature=0.7,
        top_p=0.9,
        seed=5,
        stop=["\n"],
        max_completion_tokens=30,
        metadata={"app": "t"},
        user="u1",
        store=False,
        extra_headers=headers,
    )
    answer = raw.parse()
    event = await live.recorded(answer.id)
    assert raw.headers["x-episode-id"] == event.episode_id == "case-7"
    assert event.trace_id == "ab" * 16
    assert (event.agent, event.policy, event.caller, event.tenant) == (AGENT, BASE_POLICY, "ann", "default")
    assert (event.status, event.output, event.error) == ("completed", ANSWER, None)
    assert event.metadata == {"app": "t", "user": "u1", "store": "false"}
    retrieval, call = event.calls
    assert retrieval.kind == "tool" and retrieval.name == "retrieve"
    assert isinstance(call, ModelCall)
    tokens = [token_of(BASE, position) for position in range(len(answer_of(BASE)))]
    assert call.prompt_token_ids == tuple(prompt_of(live.vllm.requests[-1]["messages"]))
    assert call.completion_token_ids == tuple(tokens)
    assert call.logprobs == tuple(logprob_of(BASE, token) for token in tokens)
    assert call.policy == BASE_POLICY and call.finish_reason == "stop"
    assert call.sampling.model_dump() == {
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 30,
        "seed": 5,
        "stop": ("\n",),
    }


async def test_sampling_is_greedy_and_within_the_agents_limit_by_default(live: World) -> None:
    assert live.gateway is not None
    limit = live.gateway.agents[AGENT].limits.max_tokens
    for given, used in ((None, limit), (limit - 1, limit - 1), (5_000, limit)):
        await live.openai().chat.completions.create(model=AGENT, messages=QUESTION, max_tokens=given)
        assert live.vllm.requests[-1]["temperature"] == 0
        assert live.vllm.requests[-1]["max_tokens"] == used


@pytest.mark.parametrize("stream", [True, False])
async def test_the_answer_is_complete_only_when_it_is_on_the_disk(live: World, stream: bool) -> None:
    with sqlite3.connect(live.config.outbox_path, isolation_level=None) as disk:
        disk.execute("BEGIN IMMEDIATE")  # whoever writes the outbox now has to wait
        body = {"model": AGENT, "messages": QUESTION, "stream": stream}
        seen: list[str] = []

        async def ask() -> None:
            async with live.http().stream("POST", CHAT, json=body) as response:
                async for text in response.aiter_text():
                    seen.append(text)  # noqa: PERF401  # it is read while it grows

        asking = asyncio.create_task(ask())
        if stream:
            await until(lambda: answer_of(BASE)[-1] in "".join(map(_content, seen)))
        await asyncio.sleep(0.2)
        assert not asking.done()
        assert '"finish_reason":"stop"' not in "".join(seen) and "[DONE]" not in "".join(seen)
        disk.execute("ROLLBACK")
    disk.close()
    await asking
    assert '"finish_reason":"stop"' in "".join(seen)
    assert stream == ("[DONE]" in "".join(seen))


def _content(text: str) -> str:
    chunks = [chunk for chunk in sse(text) if chunk != "[DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_the_generation_and_that_is_recorded(
    live: World, stream: bool
) -> None:
    event = await client_that_leaves(live, CHAT, {"model": AGENT, "messages": QUESTION, "stream": stream})
    assert event.status == "cancelled"
    assert event.output and ANSWER.startswith(event.output)
    assert live.vllm.running == 0


async def test_models_are_listed_with_the_policies_that_can_be_pinned(live: World) -> None:
    client = live.openai()
    assert [model.id async for model in client.models.list()] == [AGENT, BASE_POLICY, BASE, f"{BASE}@base-b0"]
    assert (await client.models.retrieve(AGENT)).owned_by == "flywheel"
    pinned = await client.chat.completions.create(model=BASE_POLICY, messages=QUESTION)
    assert (pinned.model, pinned.system_fingerprint) == (BASE_POLICY, BASE_POLICY)


async def test_beyond_the_limit_of_concurrent_requests_is_429_and_the_rest_is_answered(world: World) -> None:
    world.vllm.seconds_per_chunk = 0.05
    async with world.running(max_concurrent=2):
        client = world.http()
        body = {"model": AGENT, "messages": QUESTION}
        responses = await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(6)))
        assert sorted(response.status_code for response in responses) == [200, 200, 429, 429, 429, 429]
        refused = next(response for response in responses if response.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert (await client.post(CHAT, json=body)).status_code == 200  # the places have been given back


async def test_a_shutdown_finishes_what_is_in_progress_and_lands_it(world: World) -> None:
    world.vllm.seconds_per_chunk = 0.1
    async with world.running():
        asking = asyncio.create_task(world.http().post(CHAT, json={"model": AGENT, "messages": QUESTION}))
        await until(lambda: world.vllm.running)
        world._clients.clear()  # the test keeps its connection while the gateway shuts down
    response = await asking
    assert response.json()["choices"][0]["message"]["content"] == ANSWER
    assert (await world.recorded(response.json()["id"])).status == "completed"


async def test_a_shutdown_cancels_what_takes_longer_than_the_drain(world: World) -> None:
    world.vllm.seconds_per_chunk = 30
    async with world.running(drain_seconds=0.1):
        client = world.http()
        asking = asyncio.create_task(client.post(CHAT, json={"model": AGENT, "messages": QUESTION}))
        await until(lambda: world.vllm.running)
        assert world.gateway is not None
        await world.gateway.invoker.drain(0.1)
        response = await asking
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "shutting_down"
        assert (await world.recorded(response.headers["x-request-id"])).status == "cancelled"
