"""Processes that answer one request at a time, kept for the next, and killed when one takes too long or is cancelled."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from tools.errors import ToolUnavailableError

_START_SECONDS = 30.0  # on a busy machine


class WorkerTimeoutError(Exception):
    """A worker did not answer in time; it has been killed."""


class WorkerLostError(Exception):
    """A worker ended in the middle of a request: a limit on its memory or processor time, or a defect."""


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None and writer is not None
        try:
            writer.write(_frame(request))
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(4))
            answer: dict[str, Any] = json.loads(await reader.readexactly(size))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise WorkerLostError(str(error)) from error
        return answer

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


class Workers:
    """Up to `most` processes of one command. Use within one event loop, and close."""

    def __init__(self, command: Sequence[str], config: Mapping[str, Any], *, most: int) -> None:
        self._command = (sys.executable, *command)
        self._config = config
        self._turns = asyncio.Semaphore(most)
        self._idle: list[_Worker] = []
        self._closed = False

    async def ask(self, request: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
        """A worker's answer. Waiting for one that is free counts. Raises `ToolUnavailableError` when none gets free or
        can be started, `WorkerTimeoutError`, `WorkerLostError`.
        """
        async with self._worker(seconds) as worker:
            try:
                async with asyncio.timeout(seconds):
                    return await worker.ask(request)
            except TimeoutError as error:
                raise WorkerTimeoutError from error

    @contextlib.asynccontextmanager
    async def _worker(self, seconds: float) -> AsyncIterator[_Worker]:
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise ToolUnavailableError("too many statements are running") from error
        try:
            worker = self._take() or await self._start()
            try:
                yield worker
            except BaseException:  # also a cancellation: whatever it was doing, it must not go on
                await asyncio.shield(worker.kill())
                raise
            if self._closed:
                await worker.kill()
            else:
                self._idle.append(worker)
        finally:
            self._turns.release()

    def _take(self) -> _Worker | None:
        while self._idle:
            if (worker := self._idle.pop()).alive:
                return worker
        return None

    async def _start(self) -> _Worker:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"LC_ALL": "C.UTF-8", "PATH": os.defpath, "HOME": "/nonexistent"},
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the terminal is the gateway's to handle
            )
        except OSError as error:
            raise ToolUnavailableError(f"no process can be started: {error}") from error
        worker = _Worker(process)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker.ask(self._config)
        except (TimeoutError, WorkerLostError) as error:
            await worker.kill()
            raise ToolUnavailableError(f"a process for SQL does not start: {error}") from error
        except BaseException:
            await asyncio.shield(worker.kill())
            raise
        return worker

    async def close(self) -> None:
        """Kill all; a request that is running ends by itself and its worker with it."""
        self._closed = True
        idle, self._idle = self._idle, []
        for worker in idle:
            await worker.kill()


def _frame(value: Mapping[str, Any]) -> bytes:
    body = json.dumps(value).encode()
    return len(body).to_bytes(4) + body
