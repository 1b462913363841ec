"""Gateway and model server as processes of their own, for tests that end them as operators and machines do."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import aiohttp
import psutil

from gateway.config import GatewayConfig
from tests.gateway.conftest import until

_ROOT = Path(__file__).parents[2]
_READY_SECONDS = 60


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def model_server(port: int, *, seconds_per_chunk: float) -> AsyncIterator[str]:
    """The fake vLLM; yields its URL."""
    command = ("-m", "tests.gateway.fake_vllm", str(port), str(seconds_per_chunk))
    url = f"http://127.0.0.1:{port}"
    async with spawned(*command) as process:
        await answers(f"{url}/health", process)
        yield url


@asynccontextmanager
async def gateway(
    config: GatewayConfig, folder: Path, log: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway as operators run it, from its start on: see `answers`. `log` takes what it says; None: ours does."""
    path = folder / "gateway.json"
    path.write_text(config.model_dump_json())
    async with spawned("-m", "gateway", "--config", str(path), log=log) as process:
        yield process


@asynccontextmanager
async def spawned(*arguments: str, log: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process with the group that it leads; what is left of the group is killed at the end."""
    with log.open("wb") if log else nullcontext() as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=_ROOT,
            env=dict(os.environ),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill(process)
        await process.wait()


def kill(process: asyncio.subprocess.Process) -> None:
    """SIGKILL to the process and whatever it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


async def answers(url: str, process: asyncio.subprocess.Process) -> None:
    """Return when `url` answers with 200. Raises `TimeoutError`; `AssertionError` when the process has ended."""
    async with aiohttp.ClientSession() as session:

        async def ready() -> bool:
            assert process.returncode is None, f"the process ended with {process.returncode}"
            try:
                async with session.get(url) as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(ready, _READY_SECONDS)
