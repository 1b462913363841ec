"""Every field of OpenAI's requests is honoured by agents, or refused by its name. Nothing is dropped in silence."""

from typing import Any

import httpx
import openai
import pytest

from gateway.openai_chat import ChatRequest
from gateway.openai_responses import ResponsesRequest
from gateway.wire import Body
from tests.gateway.agent_answer import Answer, Sql
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World, sse
from tests.gateway.fake_vllm import BASE, answer_of, logprob_of, token_of
from tests.gateway.openapi import Published

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": AGENT, "messages": QUESTION},
    RESPONSES: {"model": AGENT, "input": TEXT},
}
ANSWER = "".join(answer_of(BASE))
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
OWN = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"sql": {"type": "string"}},
            "required": ["sql"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"refusal": {"type": "string"}},
            "required": ["refusal"],
            "additionalProperties": False,
        },
    ]
}
OTHER = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}

REFUSED: list[tuple[str, str, Any]] = [
    (CHAT, "audio", {"voice": "alloy", "format": "mp3"}),
    (CHAT, "frequency_penalty", 0.5),
    (CHAT, "function_call", {"name": "f"}),
    (CHAT, "functions", [FUNCTION]),
    (CHAT, "logit_bias", {"50256": -100}),
    (CHAT, "modalities", ["text", "audio"]),
    (CHAT, "moderation", {"model": "omni-moderation-latest"}),
    (CHAT, "n", 2),
    (CHAT, "prediction", {"type": "content", "content": "x"}),
    (CHAT, "presence_penalty", -0.5),
    (CHAT, "prompt_cache_options", {"ttl": "24h"}),
    (CHAT, "prompt_cache_retention", "24h"),
    (CHAT, "reasoning_effort", "low"),
    (CHAT, "service_tier", "flex"),
    (CHAT, "tool_choice", "required"),
    (CHAT, "tools", [{"type": "function", "function": FUNCTION}]),
    (CHAT, "top_logprobs", 2),
    (CHAT, "verbosity", "low"),
    (CHAT, "web_search_options", {}),
    (RESPONSES, "context_management", [{"type": "compaction"}]),
    (RESPONSES, "conversation", "conv_1"),
    (RESPONSES, "max_tool_calls", 1),
    (RESPONSES, "moderation", {"model": "omni-moderation-latest"}),
    (RESPONSES, "prompt", {"id": "pmpt_1"}),
    (RESPONSES, "prompt_cache_options", {"ttl": "24h"}),
    (RESPONSES, "prompt_cache_retention", "24h"),
    (RESPONSES, "reasoning", {"effort": "low"}),
    (RESPONSES, "service_tier", "priority"),
    (RESPONSES, "text.verbosity", "high"),
    (RESPONSES, "tool_choice", "none"),
    (RESPONSES, "tools", [{"type": "function", **FUNCTION}]),
    (RESPONSES, "top_logprobs", 1),
    (RESPONSES, "truncation", "auto"),
]
HARMLESS: dict[str, dict[str, Any]] = {
    CHAT: {
        "frequency_penalty": 0,
        "function_call": "none",
        "functions": [],
        "logit_bias": {},
        "modalities": ["text"],
        "n": 1,
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "prompt_cache_key": "k",
        "reasoning_effort": "none",
        "response_format": {"type": "text"},
        "safety_identifier": "s1",
        "service_tier": "auto",
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "verbosity": "medium",
    },
    RESPONSES: {
        "background": False,
        "include": [],
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "none"},
        "safety_identifier": "s1",
        "service_tier": "default",
        "text": {"verbosity": "medium", "format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
    },
}


@pytest.mark.parametrize(
    ("schema", "ours"),
    [("CreateChatCompletionRequest", ChatRequest), ("CreateResponse", ResponsesRequest)],
)
def test_every_field_of_the_document_is_known(published: Published, schema: str, ours: type[Body]) -> None:
    assert published.fields(schema) == {*ours.model_fields, *ours.REFUSED}
    tried = {name.partition(".")[0] for path, name, _ in REFUSED if (path == CHAT) == (ours is ChatRequest)}
    assert {*ours.REFUSED} <= tried


async def test_what_agents_cannot_honour_is_refused_by_name(live: World, published: Published) -> None:
    client = live.http()
    for path, name, value in REFUSED:
        outer, _, inner = name.partition(".")
        body = {**BODIES[path], outer: {inner: value} if inner else value}
        response = await client.post(path, json=body)
        assert response.status_code == 400, (path, name)
        published.check("ErrorResponse", response.json())
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (name, "unsupported_parameter")
        assert error["message"].startswith(f"{name} is not supported here: ")
    assert not live.vllm.requests


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_null_is_as_good_as_left_out(live: World, path: str) -> None:
    names = [name.partition(".")[0] for where, name, _ in REFUSED if where == path]
    response = await live.http().post(path, json={**BODIES[path], **dict.fromkeys(names)})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_what_asks_for_nothing_is_taken(live: World, path: str) -> None:
    response = await live.http().post(path, json={**BODIES[path], **HARMLESS[path]})
    assert response.status_code == 200, response.text
    event = await live.recorded(response.headers["x-request-id"])
    assert event.metadata == {"safety_identifier": "s1"}


WRONG: list[tuple[str, dict[str, Any], str | None]] = [
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        "response_format.json_schema.name",
    ),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 5}}}},
        "response_format",
    ),
    (CHAT, {"logprobs": 1}, "logprobs"),
    (CHAT, {"frequency_penalty": False}, "frequency_penalty"),
    (CHAT, {"safety_identifier": "x" * 65}, "safety_identifier"),
    (RESPONSES, {"input": []}, "input"),
    (RESPONSES, {"input": None}, "input"),
    (RESPONSES, {"input": [None]}, "input"),
    (RESPONSES, {"input": 5}, "input"),
    (RESPONSES, {"input": [5]}, "input.0"),
    (RESPONSES, {"input": [{"role": "assistant", "content": "x"}]}, "input"),
    (RESPONSES, {"input": [{"role": "user", "content": "x"}, {"role": "user"}]}, "input.1.content"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content"),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": ["x"], "text": "x"}]}]},
        "input.0.content",
    ),
    (RESPONSES, {"input": [{"role": "user", "content": "x", "phase": "commentary"}]}, "input.0.phase"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
    (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]}, "input.0"),
    (RESPONSES, {"input": [{"type": "file_search_call", "id": "fs_1", "queries": []}]}, "input.0"),
    (RESPONSES, {"input": [{"type": {"a": 1}}]}, "input.0"),
    (RESPONSES, {"input": "x" * 8_001}, "input"),
    (RESPONSES, {"instructions": "x" * 8_001}, "input"),
    (RESPONSES, {"include": ["everything"]}, "include.0"),
    (RESPONSES, {"max_output_tokens": 15}, "max_output_tokens"),
    (RESPONSES, {"previous_response_id": 5}, "previous_response_id"),
    (RESPONSES, {"seed": 1}, "seed"),
    (RESPONSES, {"stream": True, "stream_options": {"include_usage": True}}, "stream_options.include_usage"),
    (RESPONSES, {"stream_options": {}}, None),
    (RESPONSES, {"background": True, "stream": True}, "stream"),
    (RESPONSES, {"background": True, "store": False}, "store"),
    (RESPONSES, {"background": "yes"}, "background"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
    (RESPONSES, {"metadata": {"a": 1}}, "metadata.a"),
]


async def test_a_field_that_is_wrong_is_400_and_named(live: World) -> None:
    client = live.http()
    for path, extra, param in WRONG:
        response = await client.post(path, json={**BODIES[path], **extra})
        assert response.status_code == 400, extra
        assert response.json()["error"]["param"] == param, (extra, response.json())
    assert not live.vllm.requests


async def test_a_query_that_is_wrong_is_400_and_named(live: World) -> None:
    response = await live.openai().responses.create(model=AGENT, input=TEXT)
    items = f"{RESPONSES}/{response.id}/input_items"
    for path, query, param in (
        (items, "limit=0", "limit"),
        (items, "limit=101", "limit"),
        (items, "limit=x", "limit"),
        (items, "limit=1&limit=2", "limit"),
        (items, "order=up", "order"),
        (items, "before=msg_1", "before"),
        (items, "after=msg_1", "after"),
        (items, "include=x", "include.0"),
        (f"{RESPONSES}/{response.id}", "stream=true", "stream"),
        (f"{RESPONSES}/{response.id}", "starting_after=3", "starting_after"),
        (f"{RESPONSES}/{response.id}", "model=x", "model"),
    ):
        refused = await live.http().get(f"{path}?{query}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), query
    assert (await live.http().get(f"{RESPONSES}/{response.id}?stream=false")).status_code == 200


def _with_schema(path: str, schema: dict[str, Any]) -> dict[str, Any]:
    if path == CHAT:
        named = {"name": "answer", "strict": True, "schema": schema}
        return {**BODIES[path], "response_format": {"type": "json_schema", "json_schema": named}}
    form = {"type": "json_schema", "name": "answer", "strict": True, "schema": schema}
    return {**BODIES[path], "text": {"format": form}}


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_a_schema_that_the_agents_own_satisfies_is_honoured_and_another_refused(
    live: World, path: str
) -> None:
    client = live.http()
    assert (await client.post(path, json=_with_schema(path, OWN))).status_code == 200
    assert live.vllm.requests[-1]["response_format"]["json_schema"]["schema"] == OWN  # the agent's own
    response = await client.post(path, json=_with_schema(path, OTHER))
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "unsupported_value")
    assert error["param"] == ("response_format" if path == CHAT else "text.format")
    assert '"sql"' in error["message"]  # what to send instead
    form = {"type": "json_object"}
    body = {"response_format": form} if path == CHAT else {"text": {"format": form}}
    assert (await client.post(path, json={**BODIES[path], **body})).status_code == 200


async def test_the_clients_chat_helpers_work(live: World) -> None:
    client = live.openai()
    parsed = await client.chat.completions.parse(model=AGENT, messages=QUESTION, response_format=Answer)
    answer = parsed.choices[0].message.parsed
    assert answer is not None and isinstance(answer.root, Sql) and answer.root.sql in ANSWER
    async with client.chat.completions.stream(
        model=AGENT, messages=QUESTION, response_format=Answer, logprobs=True
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= kinds
    assert final.choices[0].message.parsed == answer
    with pytest.raises(openai.BadRequestError, match="own schema"):
        await client.chat.completions.parse(model=AGENT, messages=QUESTION, response_format=Sql)


@pytest.mark.parametrize("stream", [True, False])
async def test_logprobs_of_a_chat_are_the_servers_own(
    live: World, published: Published, stream: bool
) -> None:
    body = {**BODIES[CHAT], "logprobs": True, "stream": stream}
    response = await live.http().post(CHAT, json=body)
    given: list[Any] = []
    for answer in sse(response.text)[:-1] if stream else [response.json()]:
        published.check(f"CreateChatCompletion{'Stream' if stream else ''}Response", answer)
        given += (answer["choices"][0]["logprobs"] or {}).get("content", [])
    tokens = [token_of(BASE, position) for position in range(len(answer_of(BASE)))]
    assert given == [
        {"token": text, "logprob": logprob_of(BASE, token), "bytes": list(text.encode()), "top_logprobs": []}
        for text, token in zip(answer_of(BASE), tokens, strict=True)
    ]


async def test_obfuscation_of_a_chat_makes_every_delta_a_multiple_of_one_size(live: World) -> None:
    async def lines(options: dict[str, bool] | None) -> list[str]:
        body = {**BODIES[CHAT], "stream": True, "stream_options": options}
        response: httpx.Response = await live.http().post(CHAT, json=body)
        return [line for line in response.text.split("\n") if line.startswith("data: ")]

    padded = [line for line in await lines({"include_obfuscation": True}) if '"obfuscation"' in line]
    assert len(padded) == len(answer_of(BASE)) and len({len(line) % 64 for line in padded}) == 1
    for options in ({"include_obfuscation": False}, None):
        assert not any('"obfuscation"' in line for line in await lines(options))


async def test_not_to_be_stored_holds_whatever_the_clients_metadata_say(live: World) -> None:
    response = await live.openai().chat.completions.create(
        model=AGENT, messages=QUESTION, store=False, metadata={"store": "yes", "user": "own"}, user="u"
    )
    assert (await live.recorded(response.id)).metadata == {"store": "false", "user": "own"}
