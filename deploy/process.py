"""One child process of the supervisor: under a guard, in its own process group, logged to a file, never left behind."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from deploy.errors import FlywheelError

_GUARD = Path(__file__).with_name("guard.py")
GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.25
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0


Ready = Callable[[aiohttp.ClientSession], Awaitable[bool]]


class StartError(FlywheelError):
    """A process did not come up, or died. The message holds the end of its log and what to do."""


@dataclass(frozen=True)
class Program:
    """What to run, how to see that it is ready, and what to do when it does not come up.

    `stop_signal` is what ends it in order; after the grace period it is killed.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Ready
    log: Path
    folder: Path
    ready_seconds: float
    mend: str
    stop_signal: signal.Signals = signal.SIGTERM


class Process:
    """A running `Program`. Made by `running`."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process) -> None:
        self.program = program
        self.pid = process.pid
        self._process = process

    async def ready(self, session: aiohttp.ClientSession) -> float:
        """Wait until it answers; return the seconds that it took. Raises `StartError`."""
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < self.program.ready_seconds:
            if self._process.returncode is not None:
                raise self.death()
            if await self.program.ready(session):
                return elapsed
            await asyncio.sleep(_POLL_SECONDS)
        raise StartError(self._report(f"was not ready within {self.program.ready_seconds:g} s"))

    async def died(self) -> None:
        """Wait until it ends; to be told so, read `death`."""
        await self._process.wait()

    def death(self) -> StartError:
        """What to tell of its end."""
        code = self._process.returncode or 0
        return StartError(
            self._report(f"was ended by signal {code - 128}" if code > 128 else f"ended with status {code}")
        )

    def _report(self, what: str) -> str:
        tail = _last_lines(self.program.log, 12)
        return f"{self.program.name} {what}. The end of {self.program.log}:\n{tail}\n{self.program.mend}"

    async def stop(self) -> None:
        """Have the guard end it, which takes the grace period at most."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        await self._process.wait()


@contextlib.asynccontextmanager
async def running(program: Program) -> AsyncIterator[Process]:
    """Start the program and stop it at the end, whatever happens in between. It is not waited for: see `ready`."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    if program.log.exists():
        program.log.replace(program.log.with_suffix(".previous.log"))
    told = (str(os.getpid()), str(GRACE_SECONDS), str(int(program.stop_signal)))
    guard = (sys.executable, "-IS", str(_GUARD), *told)
    with program.log.open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *guard,
            *program.command,
            cwd=program.folder,
            env={**os.environ, **program.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal goes to the supervisor alone, which stops all in order
        )
    process = Process(program, child)
    try:
        yield process
    finally:
        await asyncio.shield(process.stop())


@contextlib.asynccontextmanager
async def kept(program: Program, told: Callable[[StartError], None]) -> AsyncIterator[Process]:
    """As `running`, but when it ends another is started, ever later when that does not help.

    `told` hears of each end. Who is given the first need not know of the others.
    """
    first: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
    keeping = asyncio.create_task(_keep(program, first, told))
    try:
        waiting: set[asyncio.Future[Any]] = {first, keeping}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():  # it could not even be started
            keeping.result()
        yield first.result()
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


async def _keep(program: Program, first: asyncio.Future[Process], told: Callable[[StartError], None]) -> None:
    delay = _FIRST_DELAY_SECONDS
    while True:
        started = time.monotonic()
        async with running(program) as process:
            if not first.done():
                first.set_result(process)
            await process.died()
            told(process.death())
        if time.monotonic() - started > _LONGEST_DELAY_SECONDS:  # it had been well
            delay = _FIRST_DELAY_SECONDS
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY_SECONDS)


def at(url: str) -> Ready:
    """Ready when `url` answers."""

    async def ready(session: aiohttp.ClientSession) -> bool:
        return await answers(session, url)

    return ready


async def at_once(_: aiohttp.ClientSession) -> bool:
    """Of a program that answers nobody: ready as soon as it runs."""
    return True


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether `url` answers with 200 within two seconds."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def holder(port: int) -> str | None:
    """Who listens on a TCP port of this machine, in words; None when nobody does."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return "another user's process"
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
            return f"process {connection.pid}"
    return None


def _last_lines(path: Path, count: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-count:]) or "    (empty)"
