"""Plain models: every byte of OpenAI's API passes, and everything that the model read and wrote is recorded."""

import asyncio
import sqlite3
from typing import Any

import httpx
import pytest

from feedback.events import ModelCall, RequestFinished
from tests.gateway.conftest import (
    AGENT,
    BASE_POLICY,
    QUESTION,
    World,
    client_that_leaves,
    disk_busy,
    sse,
    until,
)
from tests.gateway.fake_vllm import BASE, FakeVllm, answer_of, logprob_of, prompt_of, token_of

CHAT = "/v1/chat/completions"
PLAIN_POLICY = f"{BASE}@base-b0"
ANSWER = "".join(answer_of(BASE))
GOOD: dict[str, Any] = {"model": BASE, "messages": QUESTION}
CALL = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


async def _whole(world: World, **fields: Any) -> dict[str, Any]:
    response = await world.http().post(CHAT, json={**GOOD, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def _streamed(world: World, **fields: Any) -> tuple[httpx.Response, list[Any]]:
    response = await world.http().post(CHAT, json={**GOOD, **fields, "stream": True})
    return response, sse(response.text)


def _exact(event: RequestFinished, choices: int = 1, text: str = ANSWER) -> list[ModelCall]:
    """The calls of a whole answer, each with the server's own ids and logprobs."""
    assert (event.status, event.error, event.policy, event.agent) == ("completed", None, PLAIN_POLICY, BASE)
    calls = [call for call in event.calls if isinstance(call, ModelCall)]
    assert len(calls) == choices
    for index, call in enumerate(calls):
        tokens = tuple(token_of(BASE, position) + index for position in range(len(answer_of(BASE))))
        assert call.completion_token_ids == tokens
        assert call.logprobs == tuple(logprob_of(BASE, token) for token in tokens)
        assert call.text == text and call.policy == PLAIN_POLICY
        assert 0 < call.time_to_first_token <= call.latency
    return calls


async def test_a_whole_answer_is_what_an_openai_client_expects_and_is_recorded_as_the_model_saw_it(
    live: World,
) -> None:
    raw = await live.openai().chat.completions.with_raw_response.create(
        model=BASE,
        messages=QUESTION,
        temperature=0.7,
        seed=5,
        stop="\n",
        max_completion_tokens=30,
        presence_penalty=0.5,
        metadata={"app": "t"},
        user="u1",
        store=False,
        extra_headers={"x-episode-id": "case-7", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"},
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == ANSWER and answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None and answer.choices[0].message.tool_calls is None
    assert (answer.model, answer.object, answer.system_fingerprint) == (BASE, "chat.completion", PLAIN_POLICY)
    assert answer.usage and answer.usage.completion_tokens == len(answer_of(BASE))
    assert "token_ids" not in raw.text and "prompt_token_ids" not in raw.text
    assert raw.headers["x-request-id"] == answer.id and answer.id.startswith("chatcmpl-")
    assert raw.headers["x-policy"] == PLAIN_POLICY and raw.headers["x-episode-id"] == "case-7"
    assert 0 < float(raw.headers["x-flywheel-overhead-ms"]) < 10_000
    event = await live.recorded(answer.id)
    (call,) = _exact(event)
    assert (event.episode_id, event.trace_id, event.caller) == ("case-7", "ab" * 16, "ann")
    assert event.metadata == {"app": "t", "user": "u1", "store": "false"}
    assert event.output == ANSWER and event.input == call.messages
    assert call.prompt_token_ids == tuple(prompt_of(live.vllm.requests[-1]["messages"]))
    assert (call.sampling.temperature, call.sampling.max_tokens, call.sampling.seed) == (0.7, 30, 5)
    assert call.sampling.stop == ("\n",) and call.parameters["presence_penalty"] == 0.5


async def test_vllm_is_told_openais_defaults_so_that_the_record_says_by_what_was_sampled(live: World) -> None:
    await _whole(live)
    sent = live.vllm.requests[-1]
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["repetition_penalty"]) == (1, 1, 0, 1)
    assert sent["logprobs"] is True and sent["return_token_ids"] is True
    assert not {"metadata", "user", "store"} & sent.keys()


async def test_a_streamed_answer_is_framed_as_openai_frames_it_and_recorded(live: World) -> None:
    response, (*chunks, done) = await _streamed(live, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream") and done == "[DONE]"
    *said, usage = chunks
    assert said[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in said) == ANSWER
    assert [chunk["choices"][0]["finish_reason"] for chunk in said] == [None] * (len(said) - 1) + ["stop"]
    assert all(chunk["usage"] is None and chunk["choices"][0]["logprobs"] is None for chunk in said)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == len(answer_of(BASE))
    assert {chunk["id"] for chunk in chunks} == {response.headers["x-request-id"]}
    assert {chunk["system_fingerprint"] for chunk in chunks} == {PLAIN_POLICY}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "token_ids" not in response.text
    (call,) = _exact(await live.recorded(response.headers["x-request-id"]))
    assert call.prompt_token_ids == tuple(prompt_of(live.vllm.requests[-1]["messages"]))


async def test_the_openai_client_reads_the_stream(live: World) -> None:
    stream = await live.openai().chat.completions.create(model=PLAIN_POLICY, messages=QUESTION, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert {chunk.model for chunk in chunks} == {PLAIN_POLICY}


@pytest.mark.parametrize("stream", [True, False])
async def test_each_of_several_choices_is_a_call_of_its_own(live: World, stream: bool) -> None:
    if stream:
        response, (*chunks, _) = await _streamed(live, n=3)
        request_id = response.headers["x-request-id"]
        found = {chunk["choices"][0]["index"] for chunk in chunks}
    else:
        answer = await _whole(live, n=3)
        request_id, found = answer["id"], {choice["index"] for choice in answer["choices"]}
    assert found == {0, 1, 2}
    _exact(await live.recorded(request_id), 3)


@pytest.mark.parametrize("stream", [True, False])
async def test_tool_calls_pass_and_are_recorded_with_the_tools_that_were_offered(
    live: World, stream: bool
) -> None:
    live.vllm.tool_calls = (CALL,)
    history = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "call-1", "content": [{"type": "text", "text": "2"}]},
    ]
    asked = {"messages": history, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}
    if stream:
        response, (*chunks, _) = await _streamed(live, **asked)
        request_id = response.headers["x-request-id"]
        pieces = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", ())]
        assert "".join(piece["function"].get("arguments", "") for piece in pieces) == '{"a": 1}'
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        answer = await _whole(live, **asked)
        request_id = answer["id"]
        assert answer["choices"][0]["message"]["tool_calls"] == [CALL]
        assert answer["choices"][0]["message"]["content"] is None
    event = await live.recorded(request_id)
    (call,) = _exact(event, text="")
    assert call.tool_calls == (CALL,) and call.finish_reason == "tool_calls" and event.output is None
    assert call.parameters["tools"] == [TOOL] and call.parameters["parallel_tool_calls"] is False
    assert [message.role for message in event.input] == ["user", "assistant", "tool"]
    assert event.input[1].tool_calls == (CALL,) and event.input[2].text == "2"
    assert live.vllm.requests[-1]["messages"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [CALL],
    }


async def test_a_client_that_asks_for_logprobs_and_token_ids_gets_them(live: World) -> None:
    answer = await _whole(live, logprobs=True, top_logprobs=2, return_token_ids=True)
    choice = answer["choices"][0]
    assert len(choice["logprobs"]["content"]) == len(choice["token_ids"]) == len(answer_of(BASE))
    assert choice["logprobs"]["refusal"] is None
    _, (*chunks, _) = await _streamed(live, logprobs=True, return_token_ids=True)
    tokens = [token for chunk in chunks for token in chunk["choices"][0].get("token_ids", ())]
    assert tokens == choice["token_ids"] and chunks[0]["prompt_token_ids"]
    entries = [e for chunk in chunks for e in (chunk["choices"][0]["logprobs"] or {"content": ()})["content"]]
    assert [entry["logprob"] for entry in entries] == [e["logprob"] for e in choice["logprobs"]["content"]]


@pytest.mark.parametrize("stream", [True, False])
async def test_completions_pass_and_are_recorded(live: World, stream: bool) -> None:
    body = {"model": BASE, "prompt": ["Once", "Twice"], "n": 2, "stream": stream}
    response = await live.http().post("/v1/completions", json=body)
    request_id = response.headers["x-request-id"]
    assert response.status_code == 200 and request_id.startswith("cmpl-")
    texts = ["", "", "", ""]
    for answer in [c for c in sse(response.text) if c != "[DONE]"] if stream else [response.json()]:
        assert (answer["id"], answer["object"]) == (request_id, "text_completion")
        for choice in answer["choices"]:
            assert choice["logprobs"] is None and "token_ids" not in choice
            texts[choice["index"]] += choice["text"]
    assert texts == [ANSWER] * 4
    event = await live.recorded(request_id)
    assert all(call.prompt_token_ids == (1, 2, 3) for call in _exact(event, 4))
    assert event.operation == "text_completion" and [m.text for m in event.input] == ["Once", "Twice"]


async def test_embeddings_pass_and_are_recorded(live: World) -> None:
    answer = await live.openai().embeddings.create(model=BASE, input=["a", "b"], encoding_format="float")
    assert [item.embedding for item in answer.data] == [[0.5, 0.0], [0.5, 1.0]]
    async with live.store() as store:
        await until(lambda: list(store.requests(BASE, tenant="default")))
        (event,) = store.requests(BASE, tenant="default")
    assert (event.operation, event.status, event.calls) == ("embeddings", "completed", ())
    assert [message.text for message in event.input] == ["a", "b"]


async def test_what_names_an_agent_goes_on_to_it_with_its_body(live: World) -> None:
    answer = await live.http().post(CHAT, json={**GOOD, "model": AGENT})
    assert answer.json()["system_fingerprint"] == BASE_POLICY
    refused = await live.http().post("/v1/completions", json={"model": AGENT, "prompt": "x"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    for path in (CHAT, "/v1/completions", "/v1/embeddings"):
        unknown = await live.http().post(path, json={**GOOD, "model": "nobody"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found"), path


@pytest.mark.parametrize("stream", [True, False])
async def test_the_answer_is_complete_only_when_it_is_on_the_disk(live: World, stream: bool) -> None:
    async with disk_busy(live, CHAT, {**GOOD, "stream": stream}) as seen:
        assert bool(seen) == stream
        assert '"finish_reason":"stop"' not in "".join(seen) and "[DONE]" not in "".join(seen)
    assert '"finish_reason":"stop"' in "".join(seen)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_the_generation_and_that_is_recorded(
    live: World, stream: bool
) -> None:
    event = await client_that_leaves(live, CHAT, {**GOOD, "stream": stream})
    assert event.status == "cancelled" and event.error
    if stream:  # what comes in one piece comes at the end: of an answer that was cut nothing is known
        (call,) = event.calls
        assert isinstance(call, ModelCall)
        assert call.text and ANSWER.startswith(call.text) and call.finish_reason == "abort"
        assert len(call.completion_token_ids) == len(call.logprobs) > 0 and event.output == call.text
    else:
        assert event.calls == () and event.output is None


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        ((400, "tools are not supported by this model"), 400, "invalid_value"),
        ((404, "The model `base` does not exist."), 503, "policy_not_loaded"),
        ((500, "the engine died"), 502, "upstream_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_vllm_refuses_is_an_error_in_openais_shape_and_recorded(
    live: World, refusal: tuple[int, str], status: int, code: str, stream: bool
) -> None:
    live.vllm.refuse = refusal
    response = await live.http().post(CHAT, json={**GOOD, "stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert refusal[1] in response.json()["error"]["message"]
    event = await live.recorded(response.headers["x-request-id"])
    assert event.status == "failed" and event.error and code in event.error


@pytest.mark.parametrize("fault", ["error_after", "break_after"])
async def test_after_the_first_byte_an_error_is_an_event_and_a_proper_end(live: World, fault: str) -> None:
    setattr(live.vllm, fault, 3)
    response, (*chunks, last) = await _streamed(live)
    assert response.status_code == 200 and last["error"]["type"] == "server_error"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    event = await live.recorded(response.headers["x-request-id"])
    (call,) = event.calls
    assert isinstance(call, ModelCall) and event.status == "failed"
    assert len(call.completion_token_ids) == len(call.logprobs) == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_the_client_may_bound_the_time(live: World, stream: bool) -> None:
    live.vllm.seconds_per_chunk = 0.2
    headers = {"x-request-timeout": "0.3"}
    response = await live.http().post(CHAT, json={**GOOD, "stream": stream}, headers=headers)
    error = sse(response.text)[-1]["error"] if stream else response.json()["error"]
    assert (response.status_code, error["code"]) == (200 if stream else 504, "timeout")
    assert (await live.recorded(response.headers["x-request-id"])).status == "failed"
    await until(lambda: live.vllm.aborted == 1)
    wrong = await live.http().post(CHAT, json=GOOD, headers={"x-request-timeout": "soon"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-request-timeout")


async def test_without_a_key_that_may_there_is_no_answer(live: World) -> None:
    assert (await live.http(None).post(CHAT, json=GOOD)).status_code == 401
    assert not live.vllm.requests


async def test_another_server_is_asked_when_the_first_does_not_begin(world: World) -> None:
    async with FakeVllm().served() as second, world.running(more_vllm_urls=(second.url,)):
        for fault in ((500, "the engine died"), (503, "loading")):
            world.vllm.refuse, second.refuse = fault, None
            answers = [await _whole(world, messages=[{"role": "user", "content": f"{n}"}]) for n in range(6)]
            assert all(answer["choices"][0]["message"]["content"] == ANSWER for answer in answers)
        assert world.gateway is not None and world.gateway.pool.replicas[0].outstanding == 0


async def test_without_capture_vllms_bytes_pass_as_they_are_and_nothing_is_recorded(world: World) -> None:
    async with world.running(capture=False):
        answer = await _whole(world)
        assert answer["id"] == "chatcmpl-1" and "return_token_ids" not in world.vllm.requests[-1]
        _, (*chunks, done) = await _streamed(world)
        assert done == "[DONE]" and chunks[-1]["choices"][0]["finish_reason"] == "stop"
    async with world.store() as store:
        assert store.counts()["requests"] == 0


async def test_a_full_disk_is_503_and_a_stream_ends_without_a_finish_reason(world: World) -> None:
    async with world.running(outbox_max_bytes=32_768):
        store = sqlite3.connect(world.folder / "store.db", isolation_level=None)
        store.execute("BEGIN IMMEDIATE")  # the store takes nothing: everything stays in the outbox
        client = world.http()
        while (response := await client.post(CHAT, json=GOOD)).status_code == 200:
            pass
        assert response.json()["error"]["code"] == "storage_full"
        _, (*chunks, last) = await _streamed(world)
        assert last["error"]["code"] == "storage_full"
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        store.execute("ROLLBACK")
        store.close()


async def test_a_shutdown_finishes_what_is_in_progress(world: World) -> None:
    world.vllm.seconds_per_chunk = 0.1
    async with world.running():
        asking = asyncio.create_task(world.http().post(CHAT, json=GOOD))
        await until(lambda: world.vllm.running)
        world._clients.clear()  # the test keeps its connection while the gateway shuts down
    response = await asking
    assert response.json()["choices"][0]["message"]["content"] == ANSWER
    assert (await world.recorded(response.json()["id"])).status == "completed"
