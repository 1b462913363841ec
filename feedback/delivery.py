"""What takes events and has them in the store sooner or later: an outbox, and a relay that empties it into a bus."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from feedback.bus.base import Bus, BusError
from feedback.outbox import Depth, Outbox, OutboxError
from feedback.relay import Relay

EMPTY_SECONDS = 10.0  # how long an end tries to empty the outbox; what stays is taken at the next start
_LINGER_SECONDS = 0.05  # how much later a rating or a request may be seen in the store

_log = logging.getLogger(__name__)


class Delivery(Protocol):
    """Takes events. Methods raise `OutboxError`; those that are not `async` block, and are for any thread."""

    @property
    def failures(self) -> int:
        """Attempts to move events that failed, since it began."""
        ...

    async def append(self, event: BaseModel) -> None:
        """Return when the event is on the disk."""
        ...

    async def append_encoded(self, body: bytes) -> None:
        """As `append`, for an event that is JSON already."""
        ...

    async def check(self) -> None:
        """Return if events are being taken."""
        ...

    def containing(self, text: bytes) -> list[bytes]:
        """The waiting events with these bytes in them, oldest first."""
        ...

    def depth(self) -> Depth:
        """How much waits."""
        ...


class Here(Outbox):
    """A `Delivery` in this process."""

    def __init__(self, path: Path, max_bytes: int | None, bus: Bus) -> None:
        """Raises `OutboxError`."""
        super().__init__(path, max_bytes)
        self.relay = Relay(self, bus, linger=_LINGER_SECONDS)

    @property
    def failures(self) -> int:
        """See `Delivery`."""
        return self.relay.failures


@asynccontextmanager
async def delivering(
    path: Path, max_bytes: int | None, bus: Bus, *, drain: bool = True
) -> AsyncIterator[Here]:
    """Deliver from this process. What is left at its end is tried for.

    `drain`: what the last run has left behind is delivered when it begins, and policy changes are in the store. Raises
    `OutboxError`, and `BusError` where that cannot be and the bus is not one that is begun without.
    """
    here = Here(path, max_bytes, bus)
    try:
        if drain:
            await _begin(
                here.relay, bus
            )  # policy changes of the last run must be in the store before it is read
        moving = asyncio.create_task(here.relay.run(), name="relay")
        moving.add_done_callback(_tell)
        try:
            yield here
        finally:
            moving.cancel()
            await asyncio.wait({moving})
            await _empty(here.relay)
    finally:
        await asyncio.to_thread(here.close)


async def _begin(relay: Relay, bus: Bus) -> None:
    try:
        with suppress(TimeoutError):  # there is much: the rest goes on beside the gateway
            async with asyncio.timeout(bus.start_seconds):
                await relay.drain()
        await bus.settle()
    except BusError as error:
        if bus.start_seconds is None:
            raise
        _log.warning("the newest policy changes may be missing, and events wait in the outbox: %s", error)


async def _empty(relay: Relay) -> None:
    try:
        await asyncio.wait_for(relay.drain(), EMPTY_SECONDS)
    except (BusError, OutboxError, TimeoutError) as error:
        _log.warning("events stay in the outbox until the next start: %s", str(error) or type(error).__name__)


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled():  # a defect: it is to run for as long as the process does
        _log.critical("the relay has stopped: restart the gateway", exc_info=task.exception())
