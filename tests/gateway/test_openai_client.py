"""The official OpenAI client, in all the ways that it is used, cannot tell the gateway from OpenAI."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from agents.external import load
from feedback.store import Keys
from gateway.config import ExternalModel
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, World, until
from tests.gateway.fake_provider import FakeProvider
from tests.gateway.fake_vllm import BASE, answer_of
from tests.gateway.openapi import Published

ANSWER = "".join(answer_of(BASE))

# LiteLLM's own types make pydantic warn, in the middle of an answer, which an error would end.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]


@pytest.fixture
def sync(live: World) -> Iterator[OpenAI]:
    """To be used in a thread: the gateway runs in the test's own."""
    with OpenAI(base_url=f"{live.url}/v1", api_key=live.keys["ann"], max_retries=0) as client:
        yield client


async def test_the_synchronous_client_asks_whole_and_streamed(sync: OpenAI) -> None:
    def ask() -> tuple[str | None, str]:
        whole = sync.chat.completions.create(model=AGENT, messages=QUESTION)
        chunks = sync.chat.completions.create(model=AGENT, messages=QUESTION, stream=True)
        return whole.choices[0].message.content, "".join(
            chunk.choices[0].delta.content or "" for chunk in chunks
        )

    assert await asyncio.to_thread(ask) == (ANSWER, ANSWER)


async def test_models_are_listed_and_retrieved(sync: OpenAI, live: World) -> None:
    listed = await asyncio.to_thread(lambda: [model.id for model in sync.models.list()])
    assert (
        listed
        == [AGENT, BASE_POLICY, BASE, f"{BASE}@base-b0"]
        == [model.id async for model in live.openai().models.list()]
    )
    assert (await live.openai().models.retrieve(AGENT)).owned_by == "flywheel"


async def test_the_stream_helper_tells_of_each_piece_and_of_the_whole(live: World, sync: OpenAI) -> None:
    options: Any = {"model": AGENT, "messages": QUESTION, "stream_options": {"include_usage": True}}
    async with live.openai().chat.completions.stream(**options) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert kinds.count("content.delta") >= len(answer_of(BASE)) and kinds.count("content.done") == 1
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == (ANSWER, "stop")
    assert final.usage is not None and final.usage.completion_tokens == len(answer_of(BASE))

    def again() -> str | None:
        with sync.chat.completions.stream(**options) as stream:
            return stream.get_final_completion().choices[0].message.content

    assert await asyncio.to_thread(again) == ANSWER


async def test_raw_and_streaming_responses_show_headers_and_bytes(live: World, published: Published) -> None:
    chat = live.openai().chat.completions
    raw = await chat.with_raw_response.create(model=AGENT, messages=QUESTION)
    assert raw.status_code == 200 and raw.headers["x-policy"] == BASE_POLICY
    assert raw.request_id == raw.headers["x-request-id"] == raw.parse().id
    published.check_answer("POST", "/chat/completions", 200, raw.http_response.json())
    async with chat.with_streaming_response.create(model=AGENT, messages=QUESTION, stream=True) as response:
        lines = [line async for line in response.iter_lines()]
    assert lines[-2:] == ["data: [DONE]", ""] or lines[-1] == "data: [DONE]"


async def test_a_client_that_runs_out_of_time_says_so_and_ends_the_generation(live: World) -> None:
    live.vllm.seconds_per_chunk = 0.5
    client = live.openai()
    for options in ({"timeout": 0.3}, {"timeout": 0.3, "stream": True}):
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model=AGENT, messages=QUESTION, **options)  # type: ignore[call-overload]  # options of both overloads
    await until(lambda: live.vllm.aborted == 2)


async def test_a_client_that_is_turned_away_comes_back_when_it_was_told_to(world: World) -> None:
    async with world.running(max_concurrent=1):
        world.vllm.seconds_per_chunk = 0.1
        client = world.openai()
        first = asyncio.create_task(client.chat.completions.create(model=AGENT, messages=QUESTION))
        await until(lambda: world.vllm.running)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=AGENT, messages=QUESTION)
        assert caught.value.response.headers["retry-after"] == "1"
        patient = client.with_options(max_retries=2)
        answer = await patient.chat.completions.create(model=AGENT, messages=QUESTION)
        assert answer.choices[0].message.content == ANSWER and (await first).id != answer.id


async def test_every_refusal_is_the_exception_that_its_status_promises(
    world: World, published: Published
) -> None:
    async with world.running(max_body_bytes=2_000):
        async with world.store() as store:
            world.keys["mute"] = Keys(store).create("mute", ["rate"])
        world.keys["wrong"] = "fw-wrong"
        good: dict[str, Any] = {"model": AGENT, "messages": QUESTION}
        cases: list[tuple[str, dict[str, Any], type[openai.APIStatusError], int]] = [
            ("ann", {**good, "temperature": 3}, openai.BadRequestError, 400),
            ("wrong", good, openai.AuthenticationError, 401),
            ("mute", good, openai.PermissionDeniedError, 403),
            ("ann", {**good, "model": "nobody"}, openai.NotFoundError, 404),
            (
                "ann",
                {**good, "messages": [{"role": "user", "content": "x" * 3_000}]},
                openai.APIStatusError,
                413,
            ),
        ]
        for who, body, kind, status in cases:
            for stream in (False, True):
                with pytest.raises(kind) as caught:
                    await world.openai(who).chat.completions.create(**body, stream=stream)
                error = caught.value
                assert isinstance(error, openai.APIStatusError) and error.status_code == status
                assert error.request_id and error.code and error.type
                published.check("ErrorResponse", error.response.json())
        world.vllm.context_tokens = 0
        with pytest.raises(openai.BadRequestError) as too_long:
            await world.openai().chat.completions.create(**good)
        assert too_long.value.code == "context_length_exceeded"
    async with world.running(vllm_url="http://127.0.0.1:9", max_body_bytes=10_000):
        with pytest.raises(openai.InternalServerError) as unavailable:
            await world.openai().chat.completions.create(**good)
        assert unavailable.value.status_code == 503


async def test_a_stream_that_breaks_is_an_exception_where_it_breaks(live: World) -> None:
    live.vllm.break_after = 2
    seen: list[str | None] = []
    stream = await live.openai().chat.completions.create(model=AGENT, messages=QUESTION, stream=True)

    async def read() -> None:
        async for chunk in stream:
            seen.append(chunk.choices[0].delta.content)  # noqa: PERF401  # what came before the break

    with pytest.raises(openai.APIError, match="model server"):
        await read()
    assert "".join(text or "" for text in seen) == "".join(answer_of(BASE)[:2])


class Count(BaseModel):
    """How many claims there are."""

    claims: int


@pytest.fixture(scope="module")
def loaded() -> None:
    """Before the first gateway, which has to be up in seconds, on however busy a machine."""
    load()


@asynccontextmanager
async def _external(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with FakeProvider(content='{"claims": 12}').served() as provider:
        model = ExternalModel(name="big", model="openai/gpt-large", api_base=provider.url, retries=0)
        async with world.running(external=(model,)):
            yield world.openai()


async def test_parsed_answers_come_from_an_external_model_whole_and_streamed(
    loaded: None, world: World
) -> None:
    async with _external(world) as client:
        whole = await client.chat.completions.parse(model="big", messages=QUESTION, response_format=Count)
        assert whole.choices[0].message.parsed == Count(claims=12)
        async with client.chat.completions.stream(
            model="big", messages=QUESTION, response_format=Count
        ) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == Count(claims=12)


async def test_tools_are_run_by_the_client_of_an_external_model(loaded: None, world: World) -> None:
    class Arguments(BaseModel):
        status: str

    tool = openai.pydantic_function_tool(Arguments, name="count_claims")
    async with _external(world) as client:
        answer = await client.chat.completions.parse(model="big", messages=QUESTION, tools=[tool])
        call = (answer.choices[0].message.tool_calls or [])[0]
        assert call.function.parsed_arguments == Arguments(status="open")
