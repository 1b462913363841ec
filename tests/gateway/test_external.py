"""Models of other providers, in front of local servers that speak OpenAI's API: nobody else is ever asked."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from agents.external import load
from feedback.events import ExternalCall, RequestFinished, parse
from gateway.app import create_app
from gateway.config import ConfigError, ExternalModel, GatewayConfig
from gateway.state import Gateway
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World, sse, until
from tests.gateway.fake_provider import PIECES, TOOL_CALL, USAGE, FakeProvider
from tests.gateway.openapi import Published

CHAT = "/v1/chat/completions"
BODY = {"model": "big", "messages": QUESTION}
ANSWER = "".join(PIECES)
TOOLS: Any = [{"type": "function", "function": {"name": "count_claims", "parameters": {"type": "object"}}}]
SECRET = "sk-provider-secret"
COST = (USAGE["prompt_tokens"] * 3 + USAGE["completion_tokens"] * 15) / 1e6

# LiteLLM's own types make pydantic warn, in the middle of an answer, which an error would end.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Items? '.*' on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Before the first gateway, which has to be up in seconds, on however busy a machine."""
    load()


@asynccontextmanager
async def providers(
    world: World, monkeypatch: pytest.MonkeyPatch, **how: Any
) -> AsyncIterator[tuple[FakeProvider, FakeProvider]]:
    """A gateway with two external models: `big`, which falls back to `small`."""
    monkeypatch.setenv("BIG_KEY", SECRET)
    async with FakeProvider().served() as big, FakeProvider().served() as small:
        models = (
            ExternalModel(
                name="big",
                model="openai/gpt-large",
                api_base=big.url,
                key_variable="BIG_KEY",
                input_price=3,
                output_price=15,
                **{"retries": 0, "fallbacks": ("small",), "timeout_seconds": 60, **how},
            ),
            ExternalModel(name="small", model="openai/gpt-4o-mini", api_base=small.url, retries=0),
        )
        async with world.running(external=models):
            yield big, small


@pytest.fixture
async def both(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FakeProvider, FakeProvider]]:
    async with providers(world, monkeypatch) as servers:
        yield servers


Both = tuple[FakeProvider, FakeProvider]


def call_of(event: RequestFinished) -> ExternalCall:
    (call,) = event.calls
    assert isinstance(call, ExternalCall)
    return call


async def test_a_whole_answer_is_given_recorded_and_priced(
    world: World, both: Both, published: Published
) -> None:
    extra = {
        "temperature": 0.5,
        "reasoning_effort": "low",
        "metadata": {"app": "t"},
        "user": "u1",
        "store": False,
    }
    response = await world.http().post(CHAT, json={**BODY, **extra}, headers={"x-episode-id": "case-1"})
    answer = response.json()
    published.check_answer("POST", "/chat/completions", 200, answer)
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert (answer["model"], answer["usage"]["total_tokens"]) == ("big", 25)
    assert answer["id"] == response.headers["x-request-id"]
    assert response.headers["x-policy"] == answer["system_fingerprint"] == "big@gpt-large-0613"
    assert float(response.headers["x-cost-usd"]) == pytest.approx(COST)
    (sent,) = both[0].requests
    assert sent == {"model": "gpt-large", "messages": QUESTION, "temperature": 0.5, "reasoning_effort": "low"}
    assert both[0].keys == [f"Bearer {SECRET}"]
    event = await world.recorded(answer["id"])
    assert (event.agent, event.policy, event.episode_id) == ("big", "big@gpt-large-0613", "case-1")
    assert (event.status, event.output, event.caller) == ("completed", ANSWER, "ann")
    assert event.input[0].content == TEXT
    assert event.cost == pytest.approx(COST)
    assert event.metadata == {"app": "t", "user": "u1", "store": "false"}
    call = call_of(event)
    assert (call.model, call.provider_model, call.finish_reason) == ("big", "gpt-large-0613", "stop")
    assert call.request == {**BODY, **extra}
    assert call.response == answer
    assert SECRET not in event.model_dump_json()
    assert parse(event.model_dump_json()) == event


async def test_a_streamed_answer_is_framed_as_openai_frames_it_and_recorded_whole(
    world: World, both: Both, published: Published
) -> None:
    body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
    response = await world.http().post(CHAT, json=body)
    *chunks, done = sse(response.text)
    assert done == "[DONE]"
    published.check_chunks(chunks)
    *deltas, finish, usage = chunks
    assert deltas[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in deltas) == ANSWER
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] == 25
    assert {chunk["id"] for chunk in chunks} == {response.headers["x-request-id"]}
    assert response.headers["x-policy"] == "big@gpt-large-0613"
    event = await world.recorded(response.headers["x-request-id"])
    assert (event.status, event.output, event.policy) == ("completed", ANSWER, "big@gpt-large-0613")
    assert event.cost == pytest.approx(COST)
    call = call_of(event)
    assert call.response["choices"][0]["message"]["content"] == ANSWER
    assert call.time_to_first_token is not None and call.time_to_first_token <= call.latency


async def test_tools_go_to_the_provider_and_their_calls_come_back(world: World, both: Both) -> None:
    client = world.openai()
    whole = await client.chat.completions.create(
        model="big", messages=QUESTION, tools=TOOLS, tool_choice="auto"
    )
    assert both[0].requests[-1]["tools"] == TOOLS and both[0].requests[-1]["tool_choice"] == "auto"
    called = (whole.choices[0].message.tool_calls or [])[0]
    assert called.model_dump(exclude_none=True) == TOOL_CALL
    async with client.chat.completions.stream(model="big", messages=QUESTION, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    streamed = (final.choices[0].message.tool_calls or [])[0]
    assert (streamed.id, streamed.function.arguments) == ("call_1", TOOL_CALL["function"]["arguments"])
    assert final.choices[0].finish_reason == "tool_calls"
    event = await world.recorded(final.id)
    assert event.output == ""
    assert call_of(event).response["choices"][0]["message"]["tool_calls"] == [TOOL_CALL]
    result: Any = {"role": "tool", "tool_call_id": "call_1", "content": "12"}
    own: Any = whole.choices[0].message
    await client.chat.completions.create(model="big", messages=[*QUESTION, own, result])
    assert [message["role"] for message in both[0].requests[-1]["messages"]] == ["user", "assistant", "tool"]


async def test_what_may_pass_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with providers(world, monkeypatch, retries=1) as (big, small):
        big.failures.append((503, "busy"))
        response = await world.http().post(CHAT, json=BODY)
        assert (response.status_code, response.headers["x-policy"]) == (200, "big@gpt-large-0613")
        assert (len(big.requests), len(small.requests)) == (2, 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_one_model_cannot_answer_its_fallback_does(world: World, both: Both, stream: bool) -> None:
    both[0].failures.append((500, "broken"))
    response = await world.http().post(CHAT, json={**BODY, "stream": stream})
    assert (response.status_code, response.headers["x-policy"]) == (200, "small@gpt-4o-mini-0613")
    assert [request["model"] for request in both[1].requests] == ["gpt-4o-mini"]
    event = await world.recorded(response.headers["x-request-id"])
    assert (event.agent, call_of(event).model, event.output) == ("big", "small", ANSWER)
    assert event.cost is not None and 0 < event.cost < COST  # by LiteLLM's own list: it has no prices of ours


async def test_a_model_that_fails_again_and_again_is_left_alone_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with providers(world, monkeypatch, cooldown_after=1, cooldown_seconds=1.0) as (big, small):
        client = world.http()
        big.failures.extend([(500, "broken")] * 2)
        for _ in range(4):
            response = await client.post(CHAT, json=BODY)
            assert response.headers["x-policy"] == "small@gpt-4o-mini-0613"
        assert (len(big.requests), len(small.requests)) == (2, 4)
        small.failures.append((500, "broken"))
        refused = await client.post(CHAT, json=BODY)
        assert refused.status_code == 503 and refused.headers["retry-after"]

        async def asked_again() -> bool:
            return (await client.post(CHAT, json=BODY)).headers["x-policy"] == "big@gpt-large-0613"

        await until(asked_again, 5)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_providers_refusal_has_openais_shape_and_the_right_status(
    world: World, monkeypatch: pytest.MonkeyPatch, published: Published, stream: bool
) -> None:
    cases = [
        (400, "'temperature' must be below 2", 400, "invalid_value"),
        (400, "This model's maximum context length is 10 tokens", 400, "context_length_exceeded"),
        (429, "slow down", 429, "rate_limit_exceeded"),
        (401, f"Incorrect API key provided: {SECRET}", 502, "upstream_refused"),
        (404, "no such model", 502, "upstream_refused"),
        (500, "broken", 503, "upstream_unavailable"),
    ]
    async with providers(world, monkeypatch, fallbacks=(), cooldown_after=100) as (big, _):
        big.headers = {"retry-after": "7"}
        for status, message, expected, code in cases:
            big.failures.append((status, message))
            response = await world.http().post(CHAT, json={**BODY, "stream": stream})
            error = response.json()["error"]
            published.check("ErrorResponse", response.json())
            assert (response.status_code, error["code"]) == (expected, code), error
            assert SECRET not in response.text and "litellm" not in response.text.lower()
            if expected == 400:
                assert message in error["message"]
            if expected == 429:
                assert response.headers["retry-after"] == "7"
            event = await world.recorded(response.headers["x-request-id"])
            assert (event.status, event.policy, event.calls) == ("failed", "big@openai/gpt-large", ())
            assert event.error is not None and event.error.startswith(code) and SECRET not in event.error


async def test_a_provider_that_is_not_there_or_too_slow_is_503_or_504(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with providers(world, monkeypatch, fallbacks=(), timeout_seconds=0.2) as (big, _):
        big.seconds_per_chunk = 5
        response = await world.http().post(CHAT, json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        await until(lambda: not big.running)
    nobody = ExternalModel(name="big", model="openai/x", api_base="http://127.0.0.1:9/v1", retries=0)
    async with world.running(external=(nobody,)):
        response = await world.http().post(CHAT, json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unavailable")


async def test_it_answers_chats_only_and_an_unknown_name_is_told_of_it(world: World, both: Both) -> None:
    refused = await world.http().post("/v1/responses", json={"model": "big", "input": TEXT})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    assert CHAT in refused.json()["error"]["message"]
    unknown = await world.http().post(CHAT, json={**BODY, "model": "bigger"})
    assert unknown.status_code == 404 and "small" in unknown.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_client_may_bound_the_time(world: World, both: Both, stream: bool) -> None:
    both[0].seconds_per_chunk = 0.5
    body, headers = {**BODY, "stream": stream}, {"x-request-timeout": "0.8"}
    response = await world.http().post(CHAT, json=body, headers=headers)
    chunks = sse(response.text)
    error = (chunks[-1] if chunks else response.json())["error"]
    assert (response.status_code, error["code"]) == (200 if chunks else 504, "timeout")
    event = await world.recorded(response.headers["x-request-id"])
    assert event.status == "failed" and event.error is not None and event.error.startswith("timeout: ")
    await until(lambda: not both[0].running)
    assert both[1].requests == []  # who cannot wait for the first does not wait for another
    wrong = await world.http().post(CHAT, json=BODY, headers={"x-request-timeout": "soon"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-request-timeout")


async def test_a_stream_that_breaks_ends_with_an_error_event_and_is_not_continued_by_another_model(
    world: World, both: Both
) -> None:
    both[0].break_after = 3
    response = await world.http().post(CHAT, json={**BODY, "stream": True})
    *chunks, error = sse(response.text)
    assert error["error"]["type"] == "server_error"
    assert chunks and all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    event = await world.recorded(response.headers["x-request-id"])
    assert (event.status, event.output) == ("failed", "".join(PIECES[:2]))
    assert both[1].requests == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_request_to_the_provider(
    world: World, both: Both, stream: bool
) -> None:
    both[0].seconds_per_chunk = 0.5
    headers = {"x-episode-id": "gone"}
    asking = asyncio.create_task(world.http().post(CHAT, json={**BODY, "stream": stream}, headers=headers))
    await until(lambda: both[0].running)
    await asyncio.sleep(0.7)
    asking.cancel()
    await until(lambda: not both[0].running, 2)
    async with world.store() as store:
        await until(lambda: list(store.requests(tenant="default", episode_id="gone")))
        (event,) = store.requests(tenant="default", episode_id="gone")
    assert event.status == "cancelled"


async def test_a_drain_ends_what_takes_too_long_with_an_error(world: World, both: Both) -> None:
    both[0].seconds_per_chunk = 0.3
    client = world.http()
    asking = asyncio.create_task(client.post(CHAT, json=BODY))
    async with client.stream("POST", CHAT, json={**BODY, "stream": True}) as streamed:
        text = streamed.aiter_text()
        begun = await anext(text)
        await until(lambda: both[0].running == 2)
        gateway = world.gateway
        assert isinstance(gateway, Gateway)
        await gateway.drain(0)
        *chunks, error = sse(begun + "".join([more async for more in text]))
    assert chunks and error["error"]["code"] == "shutting_down"
    whole = await asking
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "shutting_down")


async def test_a_field_that_is_not_passed_on_is_refused_by_name(world: World, both: Both) -> None:
    for field, value in (("foo", 1), ("temperature", "hot"), ("messages", []), ("n", 17)):
        response = await world.http().post(CHAT, json={**BODY, field: value})
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, field)
    response = await world.http().post(CHAT, json={**BODY, "n": 2, "stream": True})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")
    assert both[0].requests == []
    several = (await world.http().post(CHAT, json={**BODY, "n": 2})).json()
    assert [choice["index"] for choice in several["choices"]] == [0, 1]


async def test_external_models_are_listed_and_operators_see_where_they_are(world: World, both: Both) -> None:
    listed = (await world.http().get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed if model["owned_by"] == "external"] == ["big", "small"]
    assert (await world.http().get("/v1/models/big")).json()["id"] == "big"
    status = (await world.http("ops").get("/v1/status")).json()
    assert status["external"]["big"] == {
        "model": "openai/gpt-large",
        "api_base": both[0].url,
        "fallbacks": ["small"],
    }
    assert SECRET not in json.dumps(status)


async def test_without_an_entry_nothing_is_on_and_litellm_is_not_even_imported(world: World) -> None:
    async with world.running():
        client = world.openai()
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="gpt-5", messages=QUESTION)
        assert (await world.http("ops").get("/v1/status")).json()["external"] == {}
    done = _python("import gateway.app, sys; sys.exit('litellm' in sys.modules)")
    assert done.returncode == 0


def test_nobody_is_asked_but_the_provider() -> None:
    script = """
import asyncio, socket

def refuse(host, *_, **__):
    print("asked for", host)
    raise OSError("no network")

socket.getaddrinfo = refuse
from gateway.config import ExternalModel
from gateway.external import External
from gateway.errors import ApiError

async def main():
    model = ExternalModel(name="big", model="openai/gpt-4o", api_base="http://provider.test/v1", retries=0)
    external = External((model,))
    await external.open()
    try:
        async for _ in external.ask("big", {"messages": [{"role": "user", "content": "hi"}]}, stream=False):
            pass
    except ApiError as error:
        print(error.status)
    await external.close()

asyncio.run(main())
"""
    done = _python(script)
    assert done.stdout.splitlines() == ["asked for provider.test", "503"], done.stderr


def _python(script: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)


def test_an_entry_that_cannot_work_is_refused_before_anything_is_opened(world: World) -> None:
    def config(*models: dict[str, Any]) -> GatewayConfig:
        return GatewayConfig.model_validate({**world.config.model_dump(), "external": models})

    big = {"name": "big", "model": "openai/x"}
    for models, words in (
        ([{**big, "fallbacks": ["none"]}], "no other one is called none"),
        ([big, big], "same name"),
        ([{**big, "input_price": 1}], "input_price and output_price"),
        ([{**big, "name": "a@b"}], "pattern"),
    ):
        with pytest.raises(ValueError, match=words):
            config(*models)
    with pytest.raises(ConfigError, match="MISSING_KEY is not set"):
        create_app(config({**big, "key_variable": "MISSING_KEY"}))
    with pytest.raises(ConfigError, match="is called so"):
        create_app(config({**big, "name": AGENT}))
