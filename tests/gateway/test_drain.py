"""SIGTERM: what was accepted is answered whole, what takes too long is told so, and whoever is late goes elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.gateway.conftest import AGENT, QUESTION, World, sse, until
from tests.gateway.fake_vllm import BASE, answer_of
from tests.gateway.processes import answers, free_port, gateway

CHAT = "/v1/chat/completions"
ANSWER = "".join(answer_of(BASE))
_EACH = 6  # requests of each kind that are in progress when the signal comes


@asynccontextmanager
async def _running(
    world: World, **changes: float
) -> AsyncIterator[tuple[asyncio.subprocess.Process, aiohttp.ClientSession]]:
    port = free_port()
    world.config = world.config.model_copy(update={"port": port, **changes})
    world.url = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {world.keys['ann']}"}
    async with (
        gateway(world.config, world.folder) as process,
        aiohttp.ClientSession(world.url, headers=headers) as session,
    ):
        await answers(f"{world.url}/healthz", process)
        yield process, session


async def _ask(session: aiohttp.ClientSession, *, stream: bool) -> tuple[int, str | None, str]:
    """Status, `Retry-After` and body."""
    body = {"model": AGENT, "messages": QUESTION, "stream": stream}
    async with session.post(CHAT, json=body) as response:
        return response.status, response.headers.get("retry-after"), await response.text()


async def test_what_is_in_progress_is_answered_whole_and_new_connections_are_turned_away(
    world: World,
) -> None:
    world.vllm.seconds_per_chunk = 0.15
    async with _running(world) as (process, session):
        asking = [asyncio.create_task(_ask(session, stream=n % 2 == 0)) for n in range(2 * _EACH)]
        await until(lambda: world.vllm.running == len(asking))
        process.terminate()
        await until(lambda: _turned_away(world.url))
        assert not any(task.done() for task in asking)
        for number, (status, _, text) in enumerate(await asyncio.gather(*asking)):
            assert status == 200
            if number % 2 == 0:
                *chunks, done = sse(text)
                assert done == "[DONE]" and chunks[-1]["choices"][0]["finish_reason"] == "stop"
                pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
                assert "".join(pieces) == ANSWER
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert world.vllm.aborted == 0
    async with world.store() as store:
        assert len(list(store.requests(tenant="default", status="completed"))) == len(asking)


async def test_what_takes_longer_than_the_drain_ends_with_an_error_that_says_so(world: World) -> None:
    world.vllm.seconds_per_chunk = 0.6
    async with _running(world, drain_seconds=0.5) as (process, session):
        whole = asyncio.create_task(_ask(session, stream=False))
        body = {"model": AGENT, "messages": QUESTION, "stream": True}
        async with session.post(CHAT, json=body) as streamed:
            begun = await streamed.content.readany()
            await until(lambda: world.vllm.running == 2)
            process.terminate()
            status, retry_after, text = await whole
            assert (status, retry_after) == (503, "5") and '"shutting_down"' in text
            *chunks, error = sse((begun + await streamed.read()).decode())
        assert chunks and error["error"]["code"] == "shutting_down"
        assert await asyncio.wait_for(process.wait(), 10) == 0
    async with world.store() as store:
        events = list(store.requests(tenant="default"))
    assert [event.status for event in events] == ["cancelled", "cancelled"]


async def _turned_away(url: str) -> bool:
    """Whether a new connection is refused, or answered with 503 and when to come back."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as response:
            return response.status == 503 and "retry-after" in response.headers
    except aiohttp.ClientConnectorError:
        return True
