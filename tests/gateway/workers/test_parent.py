"""The parent: workers behind one port, one that is killed returns, all of them drain, and none outlives it for long."""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from pydantic import ValidationError

from gateway.config import MOST_WORKERS, ConfigError, GatewayConfig
from gateway.listener import bound, reserve
from gateway.workers.parent import oversee
from tests.gateway.conftest import AGENT, QUESTION, World, sse, until
from tests.gateway.processes import alive, answers, free_port, gateway
from tests.gateway.test_metrics import Samples

CHAT = "/v1/chat/completions"
_MANY = (
    32  # connections: that all of them come to the same of two workers is one chance in two thousand million
)


@asynccontextmanager
async def started(world: World, **changes: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Two workers, ready."""
    port = free_port()
    world.config = world.config.model_copy(update={"port": port, "workers": 2, **changes})
    world.url = f"http://127.0.0.1:{port}"
    async with gateway(world.config, world.folder) as process:
        await answers(f"{world.url}/readyz", process)
        yield process


async def ask(world: World, *, stream: bool = False) -> tuple[str, str]:
    """Id and body of an answer to a connection of its own."""
    headers = {"authorization": f"Bearer {world.keys['ann']}"}
    body = {"model": AGENT, "messages": QUESTION, "stream": stream}
    async with (
        aiohttp.ClientSession(world.url, headers=headers) as session,
        session.post(CHAT, json=body) as response,
    ):
        assert response.status == 200
        return response.headers["x-request-id"], await response.text()


async def begun(world: World) -> list[asyncio.Task[tuple[str, str]]]:
    """Slow streams that are under way."""
    world.vllm.seconds_per_chunk = 0.15
    asking = [asyncio.create_task(ask(world, stream=True)) for _ in range(8)]
    await until(lambda: world.vllm.running == len(asking))
    return asking


async def all_whole(asking: list[asyncio.Task[tuple[str, str]]]) -> None:
    """Each ends as a stream should."""
    for _, text in await asyncio.gather(*asking):
        assert sse(text)[-1] == "[DONE]"


async def get(world: World, path: str) -> Any:
    headers = {"authorization": f"Bearer {world.keys['ops']}"}
    async with aiohttp.ClientSession(world.url, headers=headers) as session, session.get(path) as response:
        assert response.status == 200
        return await (response.text() if path == "/metrics" else response.json())


async def counted(world: World) -> bool:
    """Whether the metrics know of all answers."""
    seen = Samples(await get(world, "/metrics"))
    return seen("flywheel_requests_total", model=AGENT, status="completed") == _MANY


async def workers(world: World) -> dict[str, dict[str, int]]:
    status: dict[str, dict[str, dict[str, int]]] = await get(world, "/v1/status")
    return status["workers"]


async def test_both_answer_one_that_is_killed_returns_and_sigterm_lets_all_finish(world: World) -> None:
    async with started(world) as process:
        answered = [await ask(world) for _ in range(_MANY)]
        before = await workers(world)
        assert all(worker["recorded"] for worker in before.values())
        assert sum(worker["recorded"] for worker in before.values()) == _MANY
        await until(lambda: counted(world))  # each tells the others once a second
        seen = Samples(await get(world, "/metrics"))
        assert seen("flywheel_workers") == 2
        assert seen.labels("process_resident_memory_bytes", "worker") == {"0", "1"}

        for number in ("1", "0"):  # 0 leads
            os.kill(before[number]["pid"], signal.SIGKILL)
            await until(lambda pid=before[number]["pid"]: _gone(pid))
            await answers(f"{world.url}/readyz", process)
        after = await workers(world)
        assert all(after[number]["pid"] != before[number]["pid"] for number in after)
        assert await counted(world)  # they are not forgotten
        async with aiohttp.ClientSession(
            world.url, headers={"authorization": f"Bearer {world.keys['ann']}"}
        ) as session:
            for request_id, _ in answered:  # whoever gave them, and lost its memory of it
                rating = {"request_id": request_id, "value": True}
                async with session.post("/v1/feedback", json=rating) as response:
                    assert response.status == 200

        asking = await begun(world)
        process.terminate()
        await all_whole(asking)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert alive(process.pid) == []
    async with world.store() as store:
        assert store.counts()["requests"] == _MANY + len(asking)
        assert store.counts()["ratings"] == _MANY


async def test_workers_whose_parent_is_killed_answer_what_they_have_begun_and_end(world: World) -> None:
    async with started(world) as process:
        asking = await begun(world)
        process.kill()
        await all_whole(asking)
        await until(lambda: alive(process.pid) == [])
    async with world.store() as store:
        assert store.counts()["requests"] == len(asking)


async def test_a_worker_that_cannot_start_as_configured_ends_all_with_that(world: World) -> None:
    config = world.config.model_copy(
        update={"workers": 2, "port": free_port(), "agents": (world.folder / "none",)}
    )
    log = world.folder / "log"
    async with gateway(config, world.folder, log) as process:
        assert await asyncio.wait_for(process.wait(), 60) == 2
    assert "manifest.toml" in log.read_text()


def test_a_folder_too_deep_for_sockets_is_refused_with_what_to_do(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    listener = bound("127.0.0.1", 0)
    assert oversee(world.config.model_copy(update={"workers": 2}), listener) == 2
    assert "set TMPDIR to a shorter one" in capsys.readouterr().err
    assert listener.fileno() == -1, "closed"


def test_an_address_that_is_reserved_is_the_workers_and_nobody_elses() -> None:
    with bound("127.0.0.1", 0) as parent:
        reserve(parent)
        port = parent.getsockname()[1]
        with pytest.raises(ConfigError, match="in use"):  # before a worker listens, too
            bound("127.0.0.1", port)
        with bound("127.0.0.1", port, shared=True) as first, bound("127.0.0.1", port, shared=True) as second:
            first.listen()
            second.listen()
            with pytest.raises(ConfigError, match="in use"):
                bound("127.0.0.1", port)
            with socket.create_connection(("127.0.0.1", port)):
                pass


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"workers": -1}, "greater than or equal to 0"),
        ({"workers": MOST_WORKERS + 1}, f"less than or equal to {MOST_WORKERS}"),
        ({"workers": 3, "max_concurrent": 2}, "max_concurrent: 3 workers share it, so at least 3"),
        ({"workers": 3, "replica_limit": 2}, "replica_limit: 3 workers share it"),
        ({"workers": 3, "outbox_max_bytes": 20_000}, "outbox_max_bytes: 3 workers share it"),
    ],
)
def test_settings_that_cannot_be_shared_out_are_refused_by_name(
    world: World, fields: dict[str, int], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        GatewayConfig.model_validate({**world.config.model_dump(), **fields})


def test_no_number_means_one_worker_for_each_core(world: World) -> None:
    cores = len(os.sched_getaffinity(0))
    config = GatewayConfig.model_validate({**world.config.model_dump(), "workers": 0})
    assert config.processes == min(cores, MOST_WORKERS)


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
