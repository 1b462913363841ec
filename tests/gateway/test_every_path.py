"""What holds for one way to an answer holds for all: limits, kept answers, trace, metrics, headers."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agents.external import load
from feedback.quota import Quota
from gateway.config import ExternalModel
from gateway.limits.config import LimitsConfig
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World
from tests.gateway.fake_provider import FakeProvider
from tests.gateway.fake_vllm import BASE

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "agent": ("/v1/chat/completions", {"model": AGENT, "messages": QUESTION}),
    "response": ("/v1/responses", {"model": AGENT, "input": TEXT}),
    "plain": ("/v1/chat/completions", {"model": BASE, "messages": QUESTION}),
    "plain response": ("/v1/responses", {"model": BASE, "input": TEXT}),
    "completion": ("/v1/completions", {"model": BASE, "prompt": TEXT}),
    "external": ("/v1/chat/completions", {"model": "big", "messages": QUESTION}),
}
CALLER = f"00-{'ab' * 16}-{'cd' * 8}-01"
PER_MINUTE = 2

# LiteLLM's own types make pydantic warn, in the middle of an answer, which an error would end.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Items? '.*' on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Before the first gateway, which has to be up in seconds, on however busy a machine."""
    load()


@pytest.fixture
async def limited(world: World) -> AsyncIterator[World]:
    limits = LimitsConfig(key=Quota(requests_per_minute=PER_MINUTE, tokens_per_minute=100_000))
    async with FakeProvider().served() as provider:
        big = ExternalModel(name="big", model="openai/gpt-large", api_base=provider.url, retries=0)
        async with world.running(limits=limits, external=(big,)):
            yield world


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_carries_its_headers_is_kept_counted_and_limited(
    limited: World, way: str, stream: bool
) -> None:
    path, body = WAYS[way]
    client = limited.http()

    async def ask(**headers: str) -> httpx.Response:
        return await client.post(path, json={**body, "stream": stream}, headers=headers)

    first = await ask(**{"idempotency-key": "k1", "traceparent": CALLER, "x-episode-id": "case-1"})
    assert first.status_code == 200, first.text
    told = first.headers
    assert told["traceparent"].split("-")[1] == "ab" * 16 and told["traceparent"] != CALLER
    assert told["x-episode-id"] == "case-1" and told["x-policy"].startswith(f"{body['model']}@")
    assert float(told["x-flywheel-overhead-ms"]) >= 0
    assert told["x-ratelimit-remaining-requests"] == str(PER_MINUTE - 1)
    again = await ask(**{"idempotency-key": "k1"})
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.content, again.headers["x-request-id"]) == (first.content, told["x-request-id"])
    recorded = await limited.recorded(told["x-request-id"])
    assert (recorded.status, recorded.trace_id, recorded.episode_id) == ("completed", "ab" * 16, "case-1")
    for _ in range(PER_MINUTE - 1):  # the replay took nothing
        assert (await ask()).status_code == 200
    refused = await ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    metrics = (await client.get("/metrics")).text
    counted = [line for line in metrics.splitlines() if line.startswith("flywheel_requests_total{")]
    assert [line.rpartition(" ")[2] for line in counted] == [f"{PER_MINUTE}.0"]


@pytest.mark.parametrize("way", ["agent", "response", "plain", "plain response", "completion"])
async def test_a_client_that_cannot_wait_is_told_so_in_time(limited: World, way: str) -> None:
    path, body = WAYS[way]
    limited.vllm.seconds_per_chunk = 30
    response = await limited.http().post(path, json=body, headers={"x-request-timeout": "0.1"})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    assert (await limited.http().post(path, json=body, headers={"x-request-timeout": "x"})).status_code == 400
