"""The fields of a plain model's response: each is honoured, or refused by its name."""

from typing import Any

from gateway.plain_responses import PlainResponsesRequest
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World
from tests.gateway.fake_vllm import BASE
from tests.gateway.openapi import Published
from tests.gateway.test_plain_responses import BODY, POLICY, RESPONSES, TOOL

WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({"background": True, "stream": True}, "stream"),
    ({"background": True, "store": False}, "store"),
    ({"background": 1}, "background"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"max_tool_calls": 1}, "max_tool_calls"),
    ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"prompt_cache_options": {"ttl": "24h"}}, "prompt_cache_options"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"top_logprobs": 1}, "top_logprobs"),
    ({"truncation": "auto"}, "truncation"),
    ({"text": {"verbosity": "high"}}, "text.verbosity"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ({"reasoning": {"effort": "utmost"}}, "reasoning.effort"),
    ({"seed": 1}, "seed"),
    ({"temperature": 3}, "temperature"),
    ({"max_output_tokens": 15}, "max_output_tokens"),
    ({"stream_options": {}}, None),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ({"tools": [{**TOOL, "defer_loading": True}]}, "tools.0.defer_loading"),
    ({"tools": [{**TOOL, "output_schema": {}}]}, "tools.0.output_schema"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "tools.0.name"),
    ({"tool_choice": "required"}, None),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, None),
    ({"input": []}, "input"),
    ({"input": None}, "input"),
    ({"input": [5]}, "input.0"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input.0.type"),
    ({"input": [{"type": ["message"]}]}, "input.0.type"),
    ({"input": [{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}]}, "input.1.role"),
    ({"input": [{"role": "user", "content": "x", "phase": "commentary"}]}, "input.0.phase"),
    ({"input": [{"role": "user"}]}, "input.0.content"),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input.0.content.0.file_id",
    ),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.image_url"),
    ({"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}, "input.0.content"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input.0.call_id"),
    (
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]},
        "input.0.arguments",
    ),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, "input"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]}, "input"),
    ({"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]}]}, "input"),
    ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text"}]}]}, "input.0.summary"),
    ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input.0.encrypted_content"),
    ({"previous_response_id": "resp_" + 32 * "0"}, "previous_response_id"),
]


def test_every_field_of_the_document_is_known(published: Published) -> None:
    ours = PlainResponsesRequest
    assert published.fields("CreateResponse") == {*ours.model_fields, *ours.REFUSED}
    assert {*ours.REFUSED} <= {name for extra, _ in WRONG for name in extra}


async def test_a_field_that_cannot_be_honoured_is_400_and_named(live: World, published: Published) -> None:
    client = live.http()
    for extra, param in WRONG:
        response = await client.post(RESPONSES, json={**BODY, **extra})
        assert response.status_code == 400, extra
        published.check("ErrorResponse", response.json())
        assert response.json()["error"]["param"] == param, (extra, response.json())
    assert not live.vllm.requests


async def test_what_asks_for_nothing_is_taken_and_null_is_as_good_as_left_out(live: World) -> None:
    harmless = {
        "background": False,
        "include": [],
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": "s1",
        "service_tier": "auto",
        "text": {"verbosity": "medium", "format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
    }
    response = await live.http().post(RESPONSES, json={**BODY, **harmless})
    assert response.status_code == 200, response.text
    assert (await live.recorded(response.json()["id"])).metadata == {"safety_identifier": "s1"}
    plain = live.vllm.requests[-1]
    assert not {"tools", "tool_choice", "parallel_tool_calls", "response_format"} & plain.keys()
    nothing = await live.http().post(RESPONSES, json={**BODY, **dict.fromkeys(harmless)})
    assert nothing.status_code == 200 and live.vllm.requests[-1] == plain


async def test_who_asks_for_an_unknown_model_is_told_of_all_that_answer(live: World) -> None:
    for path, body in ((RESPONSES, {"input": TEXT}), ("/v1/chat/completions", {"messages": QUESTION})):
        response = await live.http().post(path, json={"model": "nobody", **body})
        message = response.json()["error"]["message"]
        assert response.status_code == 404 and all(name in message for name in (AGENT, BASE, POLICY)), message
