"""kill -9, again and again: what a client was told is in the store, once."""

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
import orjson
import psutil
import pytest

from tests.gateway.conftest import AGENT, QUESTION, TEXT, World, until
from tests.gateway.fake_vllm import BASE
from tests.gateway.processes import alive, answers, free_port, gateway, kill, model_server

_WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"model": AGENT, "messages": QUESTION}),
    ("/v1/responses", {"model": AGENT, "input": TEXT}),
    ("/v1/chat/completions", {"model": BASE, "messages": QUESTION}),
)
_ENDS = (b'"finish_reason":"stop"', b"event: response.completed")
_KILLS, _CLIENTS, _SEED = 6, 12, 20_261_123
_GONE_SECONDS = 30


@dataclass
class Told:
    """What the clients did, what they were told, and what they were refused that they should have got."""

    answered: list[str] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)  # feedback_id → id of the rated request
    rated: Counter[str] = field(default_factory=Counter)  # attempts, by the id of the request
    refused: list[tuple[str, int, bytes]] = field(default_factory=list)


@pytest.mark.parametrize("workers", [1, 2])
async def test_whatever_was_answered_or_acknowledged_survives_every_kill_and_is_stored_once(
    world: World, workers: int
) -> None:
    chance = random.Random(_SEED)
    told = Told()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {world.keys['ann']}"}
    async with (
        model_server(free_port(), seconds_per_chunk=0.002) as vllm_url,
        aiohttp.ClientSession(url, headers=headers) as session,
        asyncio.TaskGroup() as clients,
    ):
        changes = {"vllm_url": vllm_url, "port": port, "workers": workers, "delivery_process": True}
        world.config = world.config.model_copy(update=changes)
        working = [clients.create_task(_work(session, told, number)) for number in range(_CLIENTS)]
        for number in range(_KILLS):
            answered = len(told.answered)
            async with gateway(world.config, world.folder) as process:
                if number % 4 == 3:  # while it starts, and moves to the store what the last one has left
                    await asyncio.sleep(chance.uniform(0.8, 2.2))
                else:
                    await answers(f"{url}/healthz", process)
                    await until(lambda before=answered: len(told.answered) > before)
                    await asyncio.sleep(chance.uniform(0.0, 0.6))
                if number % 4 == 2:  # what writes and moves events, while they go on being written
                    chance.choice(_delivering(process.pid)).kill()
                    await until(lambda before=len(told.answered): len(told.answered) > before)
                if workers > 1 and number % 4 == 1:  # one of them, then its parent; they end by themselves
                    os.kill(chance.choice(psutil.Process(process.pid).children()).pid, signal.SIGKILL)
                    await asyncio.sleep(chance.uniform(0.0, 3.0))
                    process.kill()
                    await until(lambda group=process.pid: not alive(group), _GONE_SECONDS)
                kill(process)
                await process.wait()
        for task in working:
            task.cancel()
    assert told.refused == []
    # The next start, of one worker, takes up what the killed ones have left in their outboxes.
    async with world.running():
        pass
    async with world.store() as store:
        requests = Counter(event.request_id for event in store.requests(tenant="default", status="completed"))
        ratings = {rating.event_id: rating.request_id for rating in store.ratings(tenant="default")}
        assert store.counts()["dead_letters"] == 0
    assert set(told.answered) <= set(requests)
    assert set(requests.values()) == {1}
    assert told.acknowledged.items() <= ratings.items()
    assert Counter(ratings.values()) <= told.rated


def _delivering(pid: int) -> list[psutil.Process]:
    """The delivery processes of a gateway, and their collectors."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie is one, too
            found += [child] if any("feedback." in word for word in child.cmdline()) else []
    return found


async def _work(session: aiohttp.ClientSession, told: Told, number: int) -> None:
    """Ask in all ways, whole and streamed by turns, and rate what agents answer, across all ends of the gateway."""
    for turn in count(number):
        request_id = None
        while request_id is None:
            request_id = await _ask(session, told, _WAYS[turn // 2 % len(_WAYS)], stream=turn % 2 == 0)
        told.answered.append(request_id)
        if _WAYS[turn // 2 % len(_WAYS)][1]["model"] == BASE:
            continue  # a plain model declares no metric to rate it by
        # A kill may come between the two: what was answered before it can be rated after it.
        feedback_id = None
        while feedback_id is None:
            feedback_id = await _rate(session, told, request_id)
        told.acknowledged[feedback_id] = request_id


async def _ask(
    session: aiohttp.ClientSession, told: Told, way: tuple[str, dict[str, Any]], *, stream: bool
) -> str | None:
    """The id of an answer that is complete."""
    path, body = way
    try:
        async with session.post(path, json={**body, "stream": stream}) as response:
            request_id = response.headers["x-request-id"]
            text = b""
            async for part in response.content.iter_any():
                text += part
                if stream and any(end in text for end in _ENDS):  # from here on the client has its answer
                    return request_id
            if response.status == 200 and not stream:
                return str(orjson.loads(text)["id"])
            if response.status != 200 or b'"error"' in text:
                told.refused.append(("ask", response.status, text[-500:]))
    except aiohttp.ClientError:
        await asyncio.sleep(0.02)  # nobody listens
    return None


async def _rate(session: aiohttp.ClientSession, told: Told, request_id: str) -> str | None:
    """The id of a rating that was acknowledged."""
    told.rated[request_id] += 1
    try:
        async with session.post("/v1/feedback", json={"request_id": request_id, "value": True}) as response:
            text = await response.read()
            if response.status == 200:
                return str(orjson.loads(text)["feedback_id"])
            told.refused.append(("rate", response.status, text[-500:]))
    except aiohttp.ClientError:
        await asyncio.sleep(0.02)
    return None
