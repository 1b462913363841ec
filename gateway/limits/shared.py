"""The same rates for several processes, counted in one place: Redis, or the worker that leads.

While it does not answer, every process goes on with rates of its own: neither is everyone refused, nor is anything
without a limit.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from gateway.limits.rates import LocalRates, Rate, Taken

_PAUSE = 1.0  # seconds in which nobody tries a counter that has just failed
_BATCH_SECONDS = 0.02  # corrections that come within this time go together

_log = logging.getLogger(__name__)


class CounterError(Exception):
    """The counter did not answer."""


class RateCounter(Protocol):
    """Where rates are counted for several processes. `name` is for the log. Methods raise `CounterError`."""

    name: str

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        """Take from all rates, or from none; what is told is `shared`."""
        ...

    async def correct(self, changes: Sequence[tuple[Rate, int]]) -> None:
        """Take so much more of each, whether it is there or not; what is negative is given back. All of one tenant."""
        ...

    async def close(self) -> None:
        """Nothing will be asked any more."""
        ...


class SharedRates:
    """Rates that all processes with the same counter share. `run` must run beside it: it carries corrections over."""

    def __init__(self, counter: RateCounter, local: LocalRates) -> None:
        self._counter = counter
        self._local = local
        self._silent_until = 0.0
        self._down = False
        self._corrections: Counter[Rate] = Counter()
        self._waiting = asyncio.Event()

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        """Take from all rates, or from none; from those of this process while the counter does not answer."""
        if time.monotonic() < self._silent_until:
            return self._local.take(rates, costs)
        try:
            taken = await self._counter.take(rates, costs)
        except CounterError as error:
            self._failed(error)
            return self._local.take(rates, costs)
        self._answered()
        return taken

    def correct(self, rate: Rate, amount: int) -> None:
        """Take so much more, whether it is there or not; what is negative is given back. Soon, and not waited for."""
        self._corrections[rate] += amount
        self._waiting.set()

    async def run(self) -> None:
        """Carry corrections over, until cancelled. What the counter has not taken is tried again."""
        while True:
            await self._waiting.wait()
            await asyncio.sleep(max(_BATCH_SECONDS, self._silent_until - time.monotonic()))
            await self.flush()

    async def flush(self) -> None:
        """Carry over what waits, if the counter answers."""
        taken, self._corrections = self._corrections, Counter()
        self._waiting.clear()
        by_tenant: dict[str, list[tuple[Rate, int]]] = {}
        for rate, amount in taken.items():
            if amount:
                by_tenant.setdefault(_slot(rate), []).append((rate, amount))
        for changes in by_tenant.values():
            try:
                await self._counter.correct(changes)
            except CounterError as error:
                self._failed(error)
                self._corrections.update(dict(changes))
                self._waiting.set()

    async def close(self) -> None:
        """Carry over what waits, then let go of the counter."""
        await self.flush()
        await self._counter.close()

    def _failed(self, error: CounterError) -> None:
        self._silent_until = time.monotonic() + _PAUSE
        if not self._down:
            name = self._counter.name
            _log.error(
                "%s does not answer, every process counts its own rates until it does: %s", name, error
            )
        self._down = True

    def _answered(self) -> None:
        if self._down:
            _log.warning("%s answers again: rates are shared", self._counter.name)
        self._down = False


def _slot(rate: Rate) -> str:
    """What Redis Cluster hashes of a name: all rates that are asked for together must have it in common."""
    return rate.name.partition("}")[0]
