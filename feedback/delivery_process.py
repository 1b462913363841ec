"""Delivery in a process of its own: `feedback.delivering`.

Writing to the disk, and moving what was written, takes as long as answering a small request does. In the gateway's own
process that is taken from its answers, since Python runs one thread at a time; here it is another core's.

On the socket between them, the gateway sends records: length (32 bits, big-endian) and bytes, an empty one being the
question whether events are taken. Lines come back, in the order of the records: how many of them, how often the relay
of this process has failed, and what was wrong, nothing when they are on the disk. The first line is about none: it
comes when events are taken (and what the last run left is delivered, where that was asked for), or says why they are
not.
"""

import asyncio
import logging
import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from feedback.bus.kafka.options import KafkaOptions
from feedback.delivery import EMPTY_SECONDS
from feedback.outbox import Depth, OutboxError, Reader, encoded

_LENGTH = struct.Struct(">I")
_RESTART_SECONDS = 0.5  # between two starts that fail
_END_SECONDS = EMPTY_SECONDS + 10.0  # a batch that is on its way to Kafka is waited for

_log = logging.getLogger(__name__)


class _Record(NamedTuple):
    body: bytes
    done: asyncio.Future[None]


class _Link(asyncio.Protocol):
    """The gateway's end of the socket. `lost` is set when the other end is closed."""

    def __init__(self, told: Callable[[int, int, str], None]) -> None:
        self.lost = asyncio.Event()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._told = told
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            count, failures, reason = line.decode().split(" ", 2)
            if self.begun.done():
                self._told(int(count), int(failures), reason)
            elif reason:
                self.begun.set_exception(OutboxError(reason))
            else:
                self.begun.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.lost.set()
        if not self.begun.done():
            self.begun.set_exception(OutboxError("the delivery process ended before it began"))


class Apart:
    """A `Delivery` whose outbox is written by a process of its own. Made by `delivering_apart`.

    When that process dies another is started and given what the first has not confirmed: an event may then be delivered
    twice, which the store does not mind.
    """

    def __init__(self, path: Path, max_bytes: int | None, store_url: str, kafka: KafkaOptions | None) -> None:
        self._path = path
        told = "" if kafka is None else kafka.model_dump_json()
        self._arguments = (str(path), str(max_bytes or 0), store_url, told)
        self._unconfirmed: deque[_Record] = deque()
        self._unsent: list[_Record] = []
        self._failures = 0  # of the process that runs
        self._failures_before = 0
        self._confirmed = 0
        self._given: _Link | None = (
            None  # to whom all that was unconfirmed has been given; who gets what comes up
        )
        self._closed = False

    @property
    def failures(self) -> int:
        """See `Delivery`."""
        return self._failures_before + self._failures

    async def append(self, event: BaseModel) -> None:
        """See `Delivery`. When cancelled, the event may or may not have been written."""
        await self.append_encoded(encoded(event))

    async def append_encoded(self, body: bytes) -> None:
        """See `Delivery`."""
        if self._closed:
            raise OutboxError("the outbox is closed")
        loop = asyncio.get_running_loop()
        record = _Record(body, loop.create_future())
        self._unconfirmed.append(record)
        if not self._unsent:  # all that comes up in this turn of the event loop goes out together
            loop.call_soon(self._send)
        self._unsent.append(record)
        await record.done

    async def check(self) -> None:
        """See `Delivery`."""
        await self.append_encoded(b"")

    def containing(self, text: bytes) -> list[bytes]:
        """See `Delivery`."""
        return self._reader.containing(text)

    def depth(self) -> Depth:
        """See `Delivery`."""
        return self._reader.depth()

    async def open(self) -> None:
        """Return when events are taken, and what the last run has left is in the store. Raises `OutboxError`."""
        await self._start(drain=True)
        self._overseeing = asyncio.create_task(self._oversee(), name="delivery")
        self._overseeing.add_done_callback(self._stopped)
        try:
            self._reader = Reader(self._path)
        except OutboxError:
            await self._end()
            raise

    async def close(self) -> None:
        """Have what was appended written, and delivered as far as the time allows."""
        await self._end()
        self._reader.close()

    async def _end(self) -> None:
        self._closed = True
        self._send()
        self._say_the_end()
        try:
            await asyncio.wait_for(asyncio.shield(self._overseeing), _END_SECONDS)
        except TimeoutError:
            _log.warning(
                "the delivery process does not end, and is killed; what it has taken is in the outbox"
            )
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._overseeing

    async def _start(self, *, drain: bool) -> None:
        try:
            ours = await self._spawn(drain=drain)
            loop = asyncio.get_running_loop()
            made = await loop.create_unix_connection(lambda: _Link(self._told), sock=ours)
        except OSError as error:
            raise OutboxError(f"the delivery process cannot be started: {error}") from error
        self._transport, self._link = made
        try:
            await self._link.begun
        except OutboxError:
            await self._process.wait()
            raise
        self._unsent.clear()
        self._transport.write(b"".join(_frames(self._unconfirmed)))
        self._given = self._link

    async def _spawn(self, *, drain: bool) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = (str(theirs.fileno()), *self._arguments, str(int(drain)))
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "feedback.delivering", *arguments),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C is for the gateway, which closes the socket when it has ended
                )
            except OSError:
                ours.close()
                raise
        return ours

    @property
    def _reached(self) -> bool:
        return self._given is self._link and not self._link.lost.is_set()

    def _send(self) -> None:
        # To a process that has died, or has not begun, nothing is sent: the next is given all that is unconfirmed.
        if self._reached and self._unsent:
            self._transport.write(b"".join(_frames(self._unsent)))
        self._unsent.clear()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        if task.exception() is not None:  # a defect; nobody may wait for ever
            _log.critical("delivery has stopped: restart the gateway", exc_info=task.exception())
            self._closed = True
            self._refuse("delivery has stopped: restart the gateway")

    def _told(self, count: int, failures: int, reason: str) -> None:
        self._failures = failures
        self._confirmed += count
        for _ in range(count):
            _settle(self._unconfirmed.popleft(), reason)

    def _refuse(self, reason: str) -> None:
        self._unsent.clear()
        while self._unconfirmed:
            _settle(self._unconfirmed.popleft(), reason)

    async def _oversee(self) -> None:
        """Start another process whenever one ends, until it is closed."""
        given_again = False
        while True:
            confirmed = self._confirmed
            await self._link.lost.wait()
            status = await self._process.wait()
            ended = f"the delivery process ended with status {status}"
            if self._closed:
                self._refuse(ended)
                return
            _log.error("%s, and is started again", ended)
            if given_again and self._confirmed == confirmed:
                self._refuse(f"{ended}, twice")  # it may be these records that end it
            self._failures_before, self._failures = self.failures, 0
            given_again = bool(self._unconfirmed)
            await self._start_again()

    async def _start_again(self) -> None:
        for failed in count():
            if self._closed:
                break
            try:
                await self._start(drain=False)  # whatever is left waits: events must be taken again at once
                break
            except OutboxError as error:
                _log.error("the delivery process does not start: %s", error)
                if failed:  # the first time it may just have been killed again
                    self._refuse(str(error))
                await asyncio.sleep(_RESTART_SECONDS)
        if self._closed:
            self._say_the_end()

    def _say_the_end(self) -> None:
        if self._reached:
            self._transport.write_eof()


@asynccontextmanager
async def delivering_apart(
    path: Path, max_bytes: int | None, store_url: str, kafka: KafkaOptions | None = None
) -> AsyncIterator[Apart]:
    """As `feedback.delivery.delivering`, by a process of its own: over Kafka, or straight into the store.

    Raises `OutboxError`.
    """
    apart = Apart(path, max_bytes, store_url, kafka)
    await apart.open()
    try:
        yield apart
    finally:
        await apart.close()


def _frames(records: Iterable[_Record]) -> Iterator[bytes]:
    for body, _ in records:
        yield _LENGTH.pack(len(body))
        yield body


def _settle(record: _Record, reason: str) -> None:
    if record.done.done():  # its task was cancelled meanwhile
        return
    if reason:
        record.done.set_exception(OutboxError(reason))
    else:
        record.done.set_result(None)
