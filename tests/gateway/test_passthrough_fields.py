"""Every field of OpenAI's requests is passed, honoured or refused by name; none is dropped in silence."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ApiError
from gateway.passthrough.request import ENDPOINTS, prepare

CHAT, COMPLETIONS, EMBEDDINGS = ENDPOINTS.values()
USER = {"role": "user", "content": "Hi"}
GOOD: dict[str, Any] = {"model": "base", "messages": [USER]}


def _description() -> dict[str, Any]:
    """OpenAI's published description of its API."""
    beside = Path(__file__).parents[3] / "shared" / "openapi" / "openai.json"
    path = Path(os.environ.get("OPENAI_OPENAPI", beside))
    if not path.is_file():
        pytest.skip(
            "set OPENAI_OPENAPI to OpenAI's OpenAPI description as JSON (github.com/openai/openai-openapi)"
        )
    description: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return description


def _names(schemas: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield from _names(schemas, schemas[schema["$ref"].rpartition("/")[2]])
    for part in schema.get("allOf", ()):
        yield from _names(schemas, part)
    yield from schema.get("properties", {})


@pytest.mark.parametrize(
    ("endpoint", "schema"),
    [
        (CHAT, "CreateChatCompletionRequest"),
        (COMPLETIONS, "CreateCompletionRequest"),
        (EMBEDDINGS, "CreateEmbeddingRequest"),
    ],
)
def test_every_field_of_openais_description_is_known(endpoint: Any, schema: str) -> None:
    schemas = _description()["components"]["schemas"]
    assert set(_names(schemas, schemas[schema])) <= endpoint.fields.keys()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"surprise": 1}, "surprise"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": []}, "functions"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"verbosity": "high"}, "verbosity"),
        ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"surprise": True}}, "stream_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["Hi"]}, "messages.0"),
        ({"messages": [{**USER, "surprise": 1}]}, "messages.0.surprise"),
        ({"messages": [{**USER, "audio": {"id": "x"}}]}, "messages.0.audio"),
        ({"messages": [USER, {"role": "nobody", "content": ""}]}, "messages.1.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages.0.content.0.type"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "", "prompt_cache_breakpoint": 1}]}
                ]
            },
            "messages.0.content.0.prompt_cache_breakpoint",
        ),
        ({"messages": [{"role": "tool", "content": "2"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}]}, "messages.0.tool_calls"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        prepare(CHAT, {**GOOD, **fields})
    assert (refused.value.status, refused.value.param) == (400, param)
    assert param.rpartition(".")[2] in refused.value.message


def test_null_is_as_good_as_absent() -> None:
    asked = prepare(CHAT, {**GOOD, **dict.fromkeys(CHAT.fields.keys() - GOOD.keys())})
    assert asked.upstream == prepare(CHAT, GOOD).upstream


def test_what_is_honoured_here_is_not_sent_on() -> None:
    here = {
        "metadata": {"a": "b"},
        "store": True,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
    }
    neutral = {"service_tier": "auto", "verbosity": "medium", "modalities": ["text"]}
    asked = prepare(CHAT, {**GOOD, **here, **neutral})
    assert asked.upstream == prepare(CHAT, GOOD).upstream
    assert asked.metadata == {"a": "b", "user": "u", "safety_identifier": "s"} and asked.affinity == "k"


def test_what_a_model_refused_before_is_what_it_said() -> None:
    said = {"role": "assistant", "content": None, "refusal": "No."}
    asked = prepare(CHAT, {**GOOD, "messages": [USER, said, USER]})
    assert asked.upstream["messages"][1]["content"] == "No." and asked.messages[1]["refusal"] == "No."


@pytest.mark.parametrize("field", [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"prompt": []}])
def test_a_completion_refuses_what_vllm_cannot_do(field: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        prepare(COMPLETIONS, {"model": "base", "prompt": "x", **field})
    assert refused.value.param == next(iter(field))
