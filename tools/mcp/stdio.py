"""The stdio transport: a server started here, JSON-RPC in lines over its pipes.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#stdio

The SDK's own transport reads lines without a bound and hands the server's errors to our stderr. Here a line is bounded,
a server that talks on without being asked is left, and what it says on stderr goes to the log, as far as it goes.
"""

import asyncio
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams  # the name of a type alone; it has no public one
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter

from tools.mcp.options import McpOptions

_WAITING = 64  # messages to a server that does not read them; beyond, who calls it waits
_UNASKED = 16  # times the longest message: what may come without an answer among it
_LEAST = 1_024  # bytes that a message counts for at least: short ones take time as well
_STDERR_BYTES = 65_536  # of one server, that are logged
_POLITE_SECONDS = 2.0  # to end when its input has ended; again when it was told to

_log = logging.getLogger(__name__)


@asynccontextmanager
async def stdio(
    name: str, options: McpOptions, ended: Callable[[], object]
) -> AsyncIterator[TransportStreams]:
    """The server runs within, in a process group that is gone afterwards. `ended` is told when it says no more.

    Raises `OSError` when it cannot be started, `McpError`.
    """
    process = await asyncio.create_subprocess_exec(
        *options.command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=options.environment(),
        cwd=options.folder,
        limit=options.max_message_bytes,
        start_new_session=True,
    )
    try:
        to_session, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        sent, from_session = anyio.create_memory_object_stream[SessionMessage](_WAITING)
        reading = _Reading(name, process, options.max_message_bytes)
        async with anyio.create_task_group() as tasks, received, sent:
            tasks.start_soon(reading.run, to_session, ended)
            tasks.start_soon(_write, process, from_session)
            tasks.start_soon(_log_stderr, name, process)
            yield received, sent
            await _ask_to_end(process)
            tasks.cancel_scope.cancel()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.move_on_after(_POLITE_SECONDS, shield=True):
            await _drained(process)


class _Reading:
    """What a server says, line by line, for as long as it keeps to the bounds."""

    def __init__(self, name: str, process: Process, max_bytes: int) -> None:
        self._name = name
        self._process = process
        self._max_bytes = max_bytes
        self._unasked = 0
        self._told = False

    async def run(
        self, to_session: MemoryObjectSendStream[SessionMessage | Exception], ended: Callable[[], object]
    ) -> None:
        assert self._process.stdout is not None
        async with to_session:
            try:
                while line := await self._process.stdout.readline():
                    message = self._parsed(line)
                    if self._unasked > _UNASKED * self._max_bytes:
                        _log.warning("mcp.%s talks without being asked: it is left", self._name)
                        break
                    if message is not None:
                        await to_session.send(message)
            except ValueError:  # asyncio's word for a line beyond the limit
                _log.warning("mcp.%s sent a line of over %d bytes: it is left", self._name, self._max_bytes)
            except (anyio.BrokenResourceError, ConnectionError):
                pass  # the session is over, or the pipe is
        ended()

    def _parsed(self, line: bytes) -> SessionMessage | None:
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._unasked += max(len(line), _LEAST)
            if not self._told:
                self._told = True
                _log.warning("mcp.%s writes what is no message to its stdout: %r …", self._name, line[:200])
            return None
        answer = isinstance(message, JSONRPCResponse | JSONRPCError)
        self._unasked = 0 if answer else self._unasked + max(len(line), _LEAST)
        return SessionMessage(message)


async def _write(process: Process, from_session: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):  # the reader hears of the end as well, and tells
        async with from_session:
            async for item in from_session:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()


async def _log_stderr(name: str, process: Process) -> None:
    assert process.stderr is not None
    left = _STDERR_BYTES
    while text := await process.stderr.read(4_096):
        if left > 0:
            for line in text.decode("utf-8", "replace").splitlines():
                _log.info("mcp.%s: %s", name, line)
        left -= len(text)


async def _drained(process: Process) -> None:
    """Read what is left in the pipes of a process that was killed: asyncio closes them at their ends, not before."""
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        while await pipe.read(65_536):
            pass
    await process.wait()


async def _ask_to_end(process: Process) -> None:
    """As the specification has it: close its input, wait, then SIGTERM. What is left is killed by the caller."""
    assert process.stdin is not None
    process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with anyio.move_on_after(_POLITE_SECONDS):
            while process.returncode is None:  # noqa: ASYNC110  # `wait` waits for whoever else holds the pipes
                await anyio.sleep(0.01)
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
