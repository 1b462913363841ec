"""The programs that make up Flywheel, each started again whenever it has ended."""

import asyncio
import ctypes
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import aiohttp
import psutil

from deploy import process
from deploy.process import Program

_PR_SET_CHILD_SUBREAPER = 36
_RESTART_SECONDS = 0.5
_POLL_SECONDS = 0.05


class Part:
    """A program that is kept running. Made by `kept`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.starts = 0
        self._running: process.Process | None = None

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Return when it answers, however often it has to be started. Raises `TimeoutError`."""
        async with asyncio.timeout(self.program.ready_seconds):
            await until(lambda: self._answers(session))

    async def kill(self, mark: str = "") -> None:
        """SIGKILL to the program, or to a descendant with `mark` in its command line, as soon as there is one.

        Raises `TimeoutError`.
        """
        async with asyncio.timeout(self.program.ready_seconds):
            await until(lambda: self._kill(mark))

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        return self._running is not None and await self.program.ready(session)

    async def _kill(self, mark: str) -> bool:
        if self._running is None:
            return False
        with suppress(psutil.Error):  # it has just ended, or been killed before
            for found in psutil.Process(self._running.pid).children(recursive=bool(mark)):
                if mark in " ".join(found.cmdline()) and found.status() != psutil.STATUS_ZOMBIE:
                    found.kill()
                    return True
        return False

    async def keep(self) -> None:
        """Run until cancelled. Each start has a log of its own."""
        log = self.program.log
        for number in itertools.count(1):
            self.starts = number
            program = replace(self.program, log=log.with_stem(f"{log.stem}-{number:03}"))
            async with process.running(program) as self._running:
                await self._running.died()
            self._running = None
            await asyncio.sleep(_RESTART_SECONDS)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when it holds, asking again and again."""
    while not await condition():  # noqa: ASYNC110  # of other processes, which tell nobody
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def kept(program: Program) -> AsyncIterator[Part]:
    """Keep a program running, and stop it at the end."""
    part = Part(program)
    keeping = asyncio.create_task(part.keep(), name=program.name)
    try:
        yield part
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


@asynccontextmanager
async def no_orphans() -> AsyncIterator[None]:
    """What our programs have started and left behind when they were killed is ours from now on, and ends with us."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        left = psutil.Process().children(recursive=True)
        for found in left:
            with suppress(psutil.NoSuchProcess):
                found.kill()
        psutil.wait_procs(left, timeout=5)
