"""Moves events from the outbox to the bus, and deletes what the bus has acknowledged: at least once, in order."""

import asyncio
import contextlib
import logging

from feedback.bus.base import Bus, BusError
from feedback.outbox import Outbox, OutboxError

_log = logging.getLogger(__name__)


class Relay:
    """One per outbox. `batch` is in events; `linger`, `poll`, `first_delay` and `longest_delay` are in seconds.

    `linger` is how long an event may wait for company: a batch costs much the same whether it holds one event or many.
    `failures` counts the attempts of `run` that moved nothing because the bus or the disk failed.
    """

    def __init__(
        self,
        outbox: Outbox,
        bus: Bus,
        *,
        batch: int = 1_000,
        linger: float = 0.0,
        poll: float = 1.0,
        first_delay: float = 0.2,
        longest_delay: float = 30.0,
    ) -> None:
        self.failures = 0
        self._outbox = outbox
        self._bus = bus
        self._batch = batch
        self._linger = linger
        self._poll = poll
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._moving = asyncio.Lock()  # run() and drain() never publish the same batch side by side

    async def run(self) -> None:
        """Move events until cancelled. A bus or a disk that fails is tried again, ever later, and logged.

        When nothing has come for a while, what was moved is wiped from the outbox's write-ahead log too.
        """
        delay = self._first_delay
        untidy = True
        while True:
            self._outbox.appended.clear()  # before the read: what comes after it sets the event again
            try:
                moved = await self._move_batch()
                untidy = untidy or moved > 0
                if not moved and not await self._appended() and untidy:
                    untidy = not await asyncio.to_thread(self._outbox.tidy)
            except (BusError, OutboxError) as error:
                self.failures += 1
                _log.warning("events stay in the outbox, next try in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, self._longest_delay)
                continue
            delay = self._first_delay
            if moved < self._batch and self._linger:
                await asyncio.sleep(self._linger)

    async def drain(self) -> None:
        """Move everything that waits, then return. Raises `BusError` or `OutboxError`; what was not moved stays."""
        while await self._move_batch():
            pass

    async def _move_batch(self) -> int:
        async with self._moving:
            waiting = await asyncio.to_thread(self._outbox.read, self._batch)
            if waiting:
                await self._bus.publish([body for _, body in waiting])
                last, _ = waiting[-1]
                await asyncio.to_thread(self._outbox.delete, last)
            return len(waiting)

    async def _appended(self) -> bool:
        """Wait for an append; False when none has come for a while."""
        # The time-out is for events appended by another process or loop. Not `wait_for`: before Python 3.12 it forgets
        # that it is cancelled when the append comes at the same moment, and the relay would run on for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll):
                await self._outbox.appended.wait()
                return True
        return False
