"""What a bus promises to the relay."""

from collections.abc import Sequence
from typing import Protocol


class BusError(Exception):
    """The batch, or a part of it, was not taken. It may be published again: readers are idempotent by `event_id`."""


class Bus(Protocol):
    """Takes batches of JSON events, in order."""

    async def publish(self, batch: Sequence[bytes]) -> None:
        """Return when the whole batch has been taken durably. Raises `BusError`, and nothing else, when it has not."""
        ...
