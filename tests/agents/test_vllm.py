"""The way to vLLM: what it says is taken over exactly, and every failure is a `ModelError`."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agents.model import Delta, ModelError, ModelRequest, Token
from agents.vllm import VllmModel
from feedback.events import Message, ModelCall, Sampling
from tests.gateway.conftest import until
from tests.gateway.fake_vllm import BASE, FakeVllm, answer_of, logprob_of, prompt_of, token_of
from tools.tool import ToolSpec

MESSAGES = (Message(role="system", content="Be brief."), Message(role="user", content="How many?"))
REQUEST = ModelRequest(MESSAGES, {"type": "object"}, Sampling(temperature=0.5, max_tokens=9))
NAME = "sql-analyst@d1"
GOOD: dict[str, Any] = {
    "model": NAME,
    "choices": [
        {
            "delta": {"content": "x"},
            "token_ids": [1],
            "logprobs": {"content": [{"token": "x", "logprob": -0.5}]},
            "finish_reason": "stop",
        }
    ],
}


@pytest.fixture
async def vllm() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(adapters={NAME: "/d1"}).served() as served:
        yield served


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@asynccontextmanager
async def replying(body: bytes, status: int = 200) -> AsyncIterator[str]:
    """A server that gives one answer to whatever it is asked."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def events(*chunks: Any) -> bytes:
    lines = [chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode() for chunk in chunks]
    return b"".join(b"data: %b\n\n" % line for line in lines)


async def parts_of(
    session: aiohttp.ClientSession,
    url: str,
    request: ModelRequest = REQUEST,
    name: str = NAME,
    into: list[Delta | ModelCall] | None = None,
) -> list[Delta | ModelCall]:
    """All that is streamed; what came before an error is in `into`."""
    parts = [] if into is None else into
    async for part in VllmModel(session, url, name=name, policy=NAME).stream(request):
        parts.append(part)
    return parts


async def test_text_token_ids_and_logprobs_are_the_servers_own(
    session: aiohttp.ClientSession, vllm: FakeVllm
):
    *deltas, call = await parts_of(session, vllm.url + "/")
    pieces = answer_of(NAME)
    tokens = [token_of(NAME, position) for position in range(len(pieces))]
    logprobs = [logprob_of(NAME, token) for token in tokens]
    spelled = [Token(piece, logprob) for piece, logprob in zip(pieces, logprobs, strict=True)]
    assert deltas == [Delta(token.text, (token,)) for token in spelled]
    assert isinstance(call, ModelCall)
    assert call.text == "".join(pieces)
    assert call.prompt_token_ids == tuple(prompt_of([m.model_dump() for m in MESSAGES]))
    assert call.completion_token_ids == tuple(tokens)
    assert (call.logprobs, call.tokens) == (tuple(logprobs), tuple(pieces))
    assert (call.finish_reason, call.policy) == ("stop", NAME)
    assert 0 < call.time_to_first_token <= call.latency
    assert (call.messages, call.response_schema, call.sampling) == (
        REQUEST.messages,
        REQUEST.response_schema,
        REQUEST.sampling,
    )


async def test_the_server_is_asked_for_exactly_what_the_request_says(
    session: aiohttp.ClientSession, vllm: FakeVllm
):
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=5, seed=3, stop=("END",))
    await parts_of(session, vllm.url, ModelRequest(MESSAGES, None, sampling))
    await parts_of(session, vllm.url, ModelRequest(MESSAGES, {"type": "object"}, Sampling()))
    free, bound = vllm.requests
    assert free["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
    ]
    wanted = {"model": NAME, "temperature": 0.7, "top_p": 0.9, "max_tokens": 5, "seed": 3, "stop": ["END"]}
    assert {key: free[key] for key in wanted} == wanted
    assert "response_format" not in free
    assert bound["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert not {"seed", "stop"} & set(bound)


async def test_an_answer_cut_at_the_token_limit_says_so(session: aiohttp.ClientSession, vllm: FakeVllm):
    vllm.finish_reason = "length"
    call = (await parts_of(session, vllm.url))[-1]
    assert isinstance(call, ModelCall)
    assert call.finish_reason == "length"


async def test_the_token_ids_of_a_very_long_prompt_arrive_in_one_line(session: aiohttp.ClientSession):
    ids = list(range(1_000_000, 1_060_000))
    first = {"model": NAME, "prompt_token_ids": ids, "choices": []}
    async with replying(events(first, GOOD, b"[DONE]")) as url:
        call = (await parts_of(session, url))[-1]
    assert isinstance(call, ModelCall)
    assert list(call.prompt_token_ids) == ids


async def test_a_prompt_that_is_too_long_is_the_clients_fault(session: aiohttp.ClientSession, vllm: FakeVllm):
    vllm.context_tokens = 2
    with pytest.raises(ModelError, match="maximum context length is 2") as failed:
        await parts_of(session, vllm.url)
    assert (failed.value.status, failed.value.code) == (400, "context_length_exceeded")


async def test_a_policy_that_is_not_loaded_is_ours_to_mend(session: aiohttp.ClientSession, vllm: FakeVllm):
    with pytest.raises(ModelError, match="does not exist") as failed:
        await parts_of(session, vllm.url, name="sql-analyst@gone")
    assert (failed.value.status, failed.value.code) == (503, "policy_not_loaded")


@pytest.mark.parametrize(
    ("status", "body", "expected", "code", "said"),
    [
        (404, b'{"detail":"Not Found"}', 400, "unsupported_operation", "cannot do this"),
        (400, b'{"error": {"message": "bad temperature"}}', 400, "invalid_value", "bad temperature"),
        (500, b'{"error": {"message": "out of memory"}}', 502, "upstream_unavailable", "500: out of memory"),
        (500, b"Internal Server Error", 502, "upstream_unavailable", "Internal Server Error"),
        (503, b"", 502, "upstream_unavailable", "HTTP 503"),
        (429, b'{"detail": "later"}', 429, "upstream_unavailable", "429"),
        (500, b"[1]", 502, "upstream_unavailable", r"\[1\]"),
        (500, b'{"error": "text"}', 502, "upstream_unavailable", "text"),
    ],
)
async def test_a_refusal_is_passed_on_with_a_status_that_fits(
    session: aiohttp.ClientSession, status: int, body: bytes, expected: int, code: str, said: str
):
    async with replying(body, status) as url:
        with pytest.raises(ModelError, match=said) as failed:
            await parts_of(session, url)
    assert (failed.value.status, failed.value.code) == (expected, code)


async def test_a_server_that_is_not_there_is_503(session: aiohttp.ClientSession):
    with pytest.raises(ModelError, match="does not answer") as failed:
        await parts_of(session, "http://127.0.0.1:9")
    assert (failed.value.status, failed.value.code) == (503, "upstream_unavailable")


async def test_a_connection_that_is_cut_is_an_error_after_the_text_so_far(
    session: aiohttp.ClientSession, vllm: FakeVllm
):
    vllm.break_after = 2
    parts: list[Delta | ModelCall] = []
    with pytest.raises(ModelError) as failed:
        await parts_of(session, vllm.url, into=parts)
    assert [part.text for part in parts] == answer_of(NAME)[:2]
    assert failed.value.status in (502, 503)


@pytest.mark.parametrize("tail", [b"", b"data: [DONE]\n\n"])
async def test_a_stream_that_ends_without_a_finish_reason_is_no_answer(
    session: aiohttp.ClientSession, tail: bytes
):
    unfinished = {"model": NAME, "choices": [{**GOOD["choices"][0], "finish_reason": None}]}
    async with replying(events(unfinished) + tail) as url:
        with pytest.raises(ModelError, match="before the answer was complete") as failed:
            await parts_of(session, url)
    assert failed.value.status == 502


@pytest.mark.parametrize(
    "chunk",
    [
        b"{broken",
        b"\xff",
        [],
        7,
        {"model": NAME},
        {"model": NAME, "choices": [{}]},
        {"model": NAME, "choices": [{"delta": {}, "logprobs": {"content": [{}]}}]},
        {"model": NAME, "choices": 5},
        {"error": "no object"},
    ],
)
async def test_a_malformed_chunk_is_the_servers_fault(session: aiohttp.ClientSession, chunk: object):
    async with replying(events(chunk, GOOD, b"[DONE]")) as url:
        with pytest.raises(ModelError, match="malformed chunk") as failed:
            await parts_of(session, url)
    assert failed.value.status == 502


async def test_an_error_in_the_stream_is_passed_on(session: aiohttp.ClientSession):
    async with replying(events({"error": {"message": "the engine died", "code": 500}})) as url:
        with pytest.raises(ModelError, match="the engine died") as failed:
            await parts_of(session, url)
    assert failed.value.status == 502


@pytest.mark.parametrize("named", [BASE, None])
async def test_an_answer_by_another_model_is_refused(session: aiohttp.ClientSession, named: str | None):
    async with replying(events({**GOOD, "model": named}, b"[DONE]")) as url:
        with pytest.raises(ModelError, match=f"asked {NAME}, answered by {named}") as failed:
            await parts_of(session, url)
    assert failed.value.status == 502


async def test_tokens_without_their_logprobs_are_refused(session: aiohttp.ClientSession):
    """They could not be recorded, and a policy must not be trained on half a record."""
    bare = {"model": NAME, "choices": [{**GOOD["choices"][0], "logprobs": None}]}
    async with replying(events(bare, b"[DONE]")) as url:
        with pytest.raises(ModelError, match="1 tokens and 0 logprobs") as failed:
            await parts_of(session, url)
    assert failed.value.status == 502


TOOLS = (ToolSpec("run_sql", "Runs a query.", {"type": "object", "properties": {"sql": {"type": "string"}}}),)


def tool_chunk(token: int, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    spelled = {"content": [{"token": f"t{token}", "logprob": -token / 10}]}
    choice = {"delta": delta, "token_ids": [token], "logprobs": spelled, "finish_reason": finish_reason}
    return {"model": NAME, "choices": [choice]}


def piece(index: int, name: str | None = None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    return {"index": index, "function": {"name": name, "arguments": arguments}, **more}


async def called(
    session: aiohttp.ClientSession, *chunks: dict[str, Any]
) -> tuple[list[tuple[str, str, str]], ModelCall]:
    """The tool calls in what a server streams: id, name, arguments."""
    async with replying(
        events({"model": NAME, "prompt_token_ids": [7], "choices": []}, *chunks, b"[DONE]")
    ) as url:
        *_, call = await parts_of(session, url, replace(REQUEST, tools=TOOLS))
    assert isinstance(call, ModelCall)
    assert all(made["type"] == "function" for made in call.tool_calls)
    functions = [(made["id"], made["function"]) for made in call.tool_calls]
    return [(name, function["name"], function["arguments"]) for name, function in functions], call


async def test_tools_are_offered_in_openais_form_and_recorded(session: aiohttp.ClientSession, vllm: FakeVllm):
    await parts_of(session, vllm.url)
    *_, call = await parts_of(session, vllm.url, replace(REQUEST, tools=TOOLS, tool_choice="none"))
    without, with_tools = vllm.requests
    assert not {"tools", "tool_choice"} & set(without)
    function = {"name": "run_sql", "description": "Runs a query.", "parameters": TOOLS[0].parameters}
    assert with_tools["tools"] == [{"type": "function", "function": function}]
    assert with_tools["tool_choice"] == "none"
    assert isinstance(call, ModelCall)
    assert call.parameters == {"tools": with_tools["tools"], "tool_choice": "none"}


async def test_tool_calls_are_put_together_from_their_pieces_with_every_token(session: aiohttp.ClientSession):
    made, call = await called(
        session,
        tool_chunk(1, content="Let me see."),
        tool_chunk(2),  # the parser holds it back
        tool_chunk(3, tool_calls=[piece(0, "run_sql", id="a", type="function")]),
        tool_chunk(4, tool_calls=[piece(0, arguments='{"sql":')]),
        tool_chunk(5, tool_calls=[piece(0, arguments=' "SELECT 1"}')]),
        tool_chunk(6, tool_calls=[piece(1, "run_sql", "", id="b", type="function")]),
        tool_chunk(7, tool_calls=[piece(1, arguments="{}")]),
        tool_chunk(8, finish_reason="tool_calls"),
    )
    assert made == [("a", "run_sql", '{"sql": "SELECT 1"}'), ("b", "run_sql", "{}")]
    assert (call.text, call.finish_reason) == ("Let me see.", "tool_calls")
    assert call.prompt_token_ids == (7,)
    assert call.completion_token_ids == tuple(range(1, 9))
    assert call.logprobs == tuple(-token / 10 for token in range(1, 9))


async def test_a_parser_may_give_calls_whole_without_an_index_and_out_of_order(
    session: aiohttp.ClientSession,
):
    whole = {"id": "a", "function": {"name": "run_sql", "arguments": '{"sql": "SELECT 1"}'}}
    made, _ = await called(session, tool_chunk(1, "tool_calls", tool_calls=[whole, {**whole, "id": "b"}]))
    assert [(name, said) for name, said, _ in made] == [("a", "run_sql"), ("b", "run_sql")]
    made, _ = await called(
        session,
        tool_chunk(1, "tool_calls", tool_calls=[piece(1, "second", id="b"), piece(0, "first", id="a")]),
    )
    assert [said for _, said, _ in made] == ["first", "second"]


@pytest.mark.parametrize("name", [None, "", "same"])
async def test_every_call_has_an_id_of_its_own(session: aiohttp.ClientSession, name: str | None):
    made, _ = await called(
        session, tool_chunk(1, "tool_calls", tool_calls=[piece(0, "a", id=name), piece(1, "b", id=name)])
    )
    first, second = (given for given, _, _ in made)
    assert first and second and first != second


async def test_a_call_that_a_parser_broke_off_is_taken_as_far_as_it_goes(session: aiohttp.ClientSession):
    made, call = await called(
        session, tool_chunk(1, tool_calls=[{"index": 0, "id": "a"}]), tool_chunk(2, finish_reason="length")
    )
    assert made == [("a", "", "")]
    assert call.finish_reason == "length"


async def test_a_tool_call_that_is_none_is_the_servers_fault(session: aiohttp.ClientSession):
    with pytest.raises(ModelError, match="malformed chunk"):
        await called(session, tool_chunk(1, "tool_calls", tool_calls=["run_sql"]))


async def test_closing_early_ends_the_generation_on_the_server(
    session: aiohttp.ClientSession, vllm: FakeVllm
):
    vllm.seconds_per_chunk = 0.2
    stream = VllmModel(session, vllm.url, name=NAME, policy=NAME).stream(REQUEST)
    assert isinstance(stream, AsyncGenerator)
    await anext(stream)
    assert vllm.running == 1
    await stream.aclose()
    async with asyncio.timeout(5):
        await until(lambda: vllm.running == 0)
    assert vllm.aborted == 1
