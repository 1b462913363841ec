"""Whatever a client sends, and whatever fails behind the gateway, it hears in OpenAI's words what to do."""

import json
from contextlib import suppress
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.store import Keys
from gateway.errors import ApiError
from gateway.openai_chat import ChatRequest
from gateway.openai_responses import ResponsesRequest
from gateway.plain_responses import PlainResponsesRequest
from gateway.response_input import InputMessage
from gateway.wire import Body, parse
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, World, sse, until
from tests.gateway.fake_vllm import BASE

CHAT = "/v1/chat/completions"
GOOD = {"model": AGENT, "messages": QUESTION}


def _user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


_BODIES: list[tuple[str, bytes, str, str | None]] = [
    ("not JSON", b"{", "invalid_json", None),
    ("empty", b"", "invalid_json", None),
    ("a list", b"[]", "invalid_value", None),
    ("NaN", b'{"model": "m", "temperature": NaN}', "invalid_json", None),
    ("a lone surrogate", b'{"model": "\\ud800"}', "invalid_json", None),
    ("invalid UTF-8", b'{"model": "\xff"}', "invalid_json", None),
    ("nested for ever", b"[" * 100_000, "invalid_json", None),
    ("nested deeply", b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "invalid_json", None),
    ("NUL", b'{"model": "a\\u0000"}', "invalid_value", None),
]
_FIELDS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    ({"tempratur": 1}, "unknown_parameter", "tempratur"),
    ({"stream": True, "stream_options": {"chunk": 5}}, "unknown_parameter", "stream_options.chunk"),
    ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "unknown_parameter", "messages.0.name"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages.0.content"),
    ({"messages": _user(None)}, "invalid_value", "messages.0.content"),
    (
        {"messages": _user([{"type": "image_url", "image_url": {"url": "x"}}])},
        "invalid_value",
        "messages.0.content",
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages.0.role"),
    ({"messages": [{"role": "system", "content": "x"}]}, "invalid_value", None),
    ({"messages": _user("x" * 8_001)}, "context_length_exceeded", "messages"),
    ({"temperature": "0.5"}, "invalid_value", "temperature"),
    ({"temperature": True}, "invalid_value", "temperature"),
    ({"temperature": 2.1}, "invalid_value", "temperature"),
    ({"top_p": 0}, "invalid_value", "top_p"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": 10, "max_completion_tokens": 11}, "invalid_value", None),
    ({"seed": 2**64}, "invalid_value", "seed"),
    ({"n": 2}, "unsupported_parameter", "n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "invalid_value", "stop"),
    ({"stop": {"a": 1}}, "invalid_value", "stop"),
    ({"stream_options": {"include_usage": True}}, "invalid_value", None),
    ({"metadata": {str(n): "x" for n in range(17)}}, "invalid_value", "metadata"),
    ({"metadata": {"a": "x" * 513}}, "invalid_value", "metadata.a"),
    ({"metadata": {"a": 1}}, "invalid_value", "metadata.a"),
]


async def test_a_body_that_is_wrong_is_400_and_the_field_is_named(live: World) -> None:
    client = live.http()
    cases = [
        *_BODIES,
        *((str(extra), json.dumps({**GOOD, **extra}).encode(), c, p) for extra, c, p in _FIELDS),
    ]
    for name, data, code, param in cases:
        response = await client.post(CHAT, content=data)
        error = response.json()["error"]
        assert response.status_code == 400, name
        assert (error["code"], error["type"]) == (code, "invalid_request_error"), name
        assert error["param"] == param, name
        assert error["message"] and "Traceback" not in error["message"]
        assert response.headers["x-request-id"].startswith("chatcmpl-") and response.headers["x-episode-id"]
        if code == "unknown_parameter":
            assert str(param) in error["message"]
    assert not live.vllm.requests


async def test_a_nul_in_the_url_is_refused_as_in_a_body(live: World) -> None:
    for path in ("/v1/responses/a%00b", "/v1/feedback?request_id=a%00b"):
        response = await live.http().get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value"), path


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def _bodies(kind: type[Body], **good: Any) -> st.SearchStrategy[Any]:
    names = st.sampled_from([*kind.model_fields, *kind.REFUSED])
    return st.dictionaries(names, _json).map(lambda given: {**given, **good}) | st.dictionaries(names, _json)


@given(_bodies(ChatRequest, **GOOD) | st.binary() | _json)
def test_no_chat_body_is_a_defect(value: object) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with suppress(ApiError):  # any other exception would be a 500
        parse(data, ChatRequest)


_item = st.dictionaries(
    st.sampled_from([*InputMessage.model_fields]),
    _json | st.sampled_from(["message", "user", "item_reference"]),
)
_texts = st.sampled_from(["input_text", "output_text", "refusal", "reasoning_text", "input_image"])
_part = st.dictionaries(st.sampled_from(["type", "text", "refusal", "image_url", "detail"]), _json | _texts)
_plain_item = st.dictionaries(
    st.sampled_from(["type", "role", "content", "call_id", "name", "arguments", "output", "summary", "id"]),
    _json
    | st.sampled_from(
        ["message", "function_call", "function_call_output", "reasoning", "user", "assistant", "c"]
    )
    | st.lists(_part, max_size=3),
)


@given(_bodies(ResponsesRequest) | st.fixed_dictionaries({"model": st.just(AGENT), "input": st.lists(_item)}))
def test_no_body_of_a_response_is_a_defect(value: object) -> None:
    with suppress(ApiError):
        parse(json.dumps(value).encode(), ResponsesRequest)


@given(
    _bodies(PlainResponsesRequest, model=BASE)
    | st.fixed_dictionaries({"model": st.just(BASE), "input": st.lists(_plain_item)})
)
def test_no_body_of_a_plain_response_is_a_defect(value: object) -> None:
    with suppress(ApiError):
        body = parse(json.dumps(value).encode(), PlainResponsesRequest)
        body.asked("resp_" + 32 * "0", None, stored=True)


async def test_a_body_that_is_too_large_is_413(world: World) -> None:
    async with world.running(max_body_bytes=2_000):
        client = world.http()
        for data in (b"x" * 2_001, b"x" * 1_000_000):
            response = await client.post(CHAT, content=data)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "request_too_large"

        async def chunked() -> Any:
            for _ in range(10):
                yield b"x" * 500

        assert (await client.post("/v1/feedback", content=chunked())).status_code == 413


async def test_a_wrong_key_is_401_and_a_missing_scope_403(live: World) -> None:
    for headers in ({}, {"authorization": "Bearer fw-wrong"}, {"authorization": "Basic abc"}):
        response = await live.http(None).post(CHAT, json=GOOD, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    response = await live.http("ann").get("/v1/policies")
    assert response.status_code == 403
    assert "operate" in response.json()["error"]["message"]


async def test_a_revoked_key_stops_working_within_seconds(live: World) -> None:
    async with live.store() as store:
        keys = Keys(store)
        secret = keys.create("tim", ["invoke"])
        headers = {"authorization": f"Bearer {secret}"}
        client = live.http(None)
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        assert keys.revoke(next(key.id for key in keys.list() if key.owner == "tim"))

    async def refused() -> bool:
        return (await client.get("/v1/models", headers=headers)).status_code == 401

    await until(refused, 3)


async def test_an_unknown_model_is_404_and_those_that_exist_are_named(live: World) -> None:
    client = live.openai()
    for model in ("gpt-5", "sql-analyst@unknown", "@", "no@base-b0"):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model=model, messages=QUESTION)
        assert caught.value.code == "model_not_found"
        assert BASE_POLICY in caught.value.message
    assert (await live.http().get("/v1/models/gpt-5")).status_code == 404


async def test_a_path_or_method_that_does_not_exist_is_answered_in_the_same_shape(live: World) -> None:
    client = live.http()
    assert (await client.get("/v1/nothing")).json()["error"]["code"] == "not_found"
    refused = await client.get(CHAT)
    assert (refused.json()["error"]["code"], refused.headers["allow"]) == ("method_not_allowed", "POST")
    assert (await client.delete("/v1/feedback")).headers["allow"] == "GET, POST"


async def test_a_bad_episode_id_is_400(live: World) -> None:
    for bad in ("a" * 129, "a b", ""):
        response = await live.http().post(CHAT, json=GOOD, headers={"x-episode-id": bad})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "x-episode-id"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_the_model_finds_too_long_is_400(live: World, stream: bool) -> None:
    live.vllm.context_tokens = 1
    response = await live.http().post(CHAT, json={**GOOD, "stream": stream})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    event = await live.recorded(response.headers["x-request-id"])
    assert (event.status, event.policy) == ("failed", BASE_POLICY)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_dead_model_server_is_503_with_retry_after_and_recorded(world: World, stream: bool) -> None:
    async with world.running(vllm_url="http://127.0.0.1:9"):
        response = await world.http().post(CHAT, json={**GOOD, "stream": stream})
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert response.json()["error"]["type"] == "server_error"
        event = await world.recorded(response.headers["x-request-id"])
        assert event.status == "failed" and event.error and "does not answer" in event.error
        ready = await world.http(None).get("/readyz")
        assert ready.status_code == 503 and "vLLM" in ready.json()["missing"][0]
        assert (await world.http(None).get("/healthz")).status_code == 200


async def test_a_generation_that_breaks_ends_the_stream_with_an_error_event(live: World) -> None:
    live.vllm.break_after = 2
    response = await live.http().post(CHAT, json={**GOOD, "stream": True})
    *chunks, error = sse(response.text)
    assert error["error"]["type"] == "server_error"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    assert (await live.recorded(response.headers["x-request-id"])).status == "failed"
    assert (await live.http().post(CHAT, json=GOOD)).status_code in (502, 503)


async def test_a_generation_that_the_server_aborted_is_no_answer(live: World) -> None:
    live.vllm.finish_reason = "abort"
    response = await live.http().post(CHAT, json=GOOD)
    assert response.status_code == 502
    event = await live.recorded(response.headers["x-request-id"])
    assert event.status == "failed" and event.calls[-1].kind == "model"


async def test_a_defect_is_500_with_an_id_to_report_and_the_traceback_in_the_log(
    live: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert live.gateway is not None
    monkeypatch.setattr(live.gateway.serving, "models", lambda: 1 / 0)
    response = await live.http().get("/v1/models")
    request_id = response.headers["x-request-id"]
    assert response.status_code == 500
    assert request_id in response.json()["error"]["message"]
    assert "division" not in response.text
    assert request_id in caplog.text and "ZeroDivisionError" in caplog.text
