"""A model of another provider in the loop: asked through the real LiteLLM, over a real socket."""

from collections.abc import AsyncIterator

import pytest

from agents.external import ExternalModel, close, load, window_of
from agents.model import Delta, ModelError, ModelRequest
from feedback.events import Message, ModelCall, Sampling
from tests.gateway.fake_provider import TOOL_CALL, USAGE, FakeProvider
from tools.tool import ToolSpec

REQUEST = ModelRequest(
    (Message(role="system", content="Be brief."), Message(role="user", content="How many?")),
    {"type": "object"},
    Sampling(temperature=0.5, max_tokens=50, seed=7, stop=("!",)),
)
COUNT = ToolSpec("count_claims", "Count.", {"type": "object", "properties": {}})


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    load()


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().served() as running:
        yield running
        await close()


def model(provider: FakeProvider) -> ExternalModel:
    return ExternalModel("strong", model="openai/strong-1", api_base=provider.url, key="sk-1", retries=0)


async def asked(model: ExternalModel, request: ModelRequest = REQUEST) -> list[Delta | ModelCall]:
    return [part async for part in model.stream(request)]


async def test_its_record_has_what_was_asked_and_answered_and_counts_but_no_tokens(provider: FakeProvider):
    delta, call = await asked(model(provider))
    assert isinstance(delta, Delta) and isinstance(call, ModelCall)
    assert delta.text == call.text == "There are 12."
    assert (call.policy, call.messages, call.sampling) == ("strong", REQUEST.messages, REQUEST.sampling)
    assert call.prompt_token_ids == call.completion_token_ids == call.logprobs == ()
    assert (call.tokens_read, call.tokens_written) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    (body,) = provider.requests
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
    ]
    assert (body["temperature"], body["max_tokens"], body["seed"], body["stop"]) == (0.5, 50, 7, ["!"])
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "tools" not in body
    assert provider.keys == ["Bearer sk-1"]


async def test_it_is_offered_the_agents_tools_and_its_calls_come_back_in_openais_form(provider: FakeProvider):
    request = ModelRequest(REQUEST.messages, None, REQUEST.sampling, tools=(COUNT,), tool_choice="required")
    (call,) = await asked(model(provider), request)
    assert isinstance(call, ModelCall)
    assert call.tool_calls == (TOOL_CALL,)
    (body,) = provider.requests
    assert body["tools"][0]["function"]["name"] == "count_claims"
    assert body["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "This model's maximum context length is 10 tokens.", "context_length_exceeded"),
        (400, "no such parameter", "invalid_value"),
        (401, "wrong key", "upstream_refused"),
        (429, "too many", "rate_limit_exceeded"),
        (500, "broken", "upstream_unavailable"),
    ],
)
async def test_a_refusal_is_told_in_the_loops_words(
    provider: FakeProvider, status: int, message: str, code: str
):
    provider.failures.append((status, message))
    with pytest.raises(ModelError, match="strong: ") as caught:
        await asked(model(provider))
    assert caught.value.code == code


async def test_what_the_list_of_models_has_is_known_of_their_windows():
    assert (window_of("openai/gpt-4o") or 0) > 100_000
    assert window_of("openai/some-model-of-ours") is None


async def test_calls_to_which_a_provider_gives_one_id_are_told_apart(provider: FakeProvider):
    provider.tool_calls = 2
    request = ModelRequest(REQUEST.messages, None, REQUEST.sampling, tools=(COUNT,), tool_choice="required")
    (call,) = await asked(model(provider), request)
    assert isinstance(call, ModelCall)
    one, two = call.tool_calls
    assert one == TOOL_CALL
    assert two["id"] != one["id"]
    assert two["function"] == one["function"]
