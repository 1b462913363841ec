"""The bus of one machine: a batch goes straight to the collector, and is taken when the store has it."""

import asyncio
from collections.abc import Sequence

from feedback.bus.base import Bus, BusError
from feedback.collector import Collector
from feedback.store import StoreError


class LocalBus(Bus):
    """A `Bus` with nothing to install. The store is written in a thread, so that the event loop goes on."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def publish(self, batch: Sequence[bytes]) -> None:
        """Return when the store has committed the batch. Raises `BusError`."""
        try:
            await asyncio.to_thread(self._collector.collect, batch)
        except StoreError as error:
            raise BusError(f"the store did not take the batch: {error}") from error
