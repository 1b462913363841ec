"""What a bus promises to the relay."""

from collections.abc import Sequence
from typing import ClassVar, Protocol


class BusError(Exception):
    """The batch, or a part of it, was not taken. It may be published again: readers are idempotent by `event_id`."""


class Bus(Protocol):
    """Takes batches of JSON events, in order. Where `publish` returns when the store has them, it is all of it."""

    start_seconds: ClassVar[float | None] = None
    """How long a gateway that starts waits for the bus to take what the last run has left, before it starts all the
    same; None: until it has, for what is published is in the store then, and what is not will be missed there."""

    async def publish(self, batch: Sequence[bytes]) -> None:
        """Return when the whole batch has been taken durably. Raises `BusError`, and nothing else, when it has not."""
        ...

    async def settle(self) -> None:
        """Return when every policy change that was published is in the store. Raises `BusError`."""
        return

    async def close(self) -> None:
        """Let go of processes, threads and connections."""
        return
