"""What a side is told of the place where it works, and how it cuts events into batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from feedback.bus.kafka.options import KafkaOptions

APPENDERS = 256  # at once: as many answers as a gateway gives at once
BATCH = 500  # events in one transaction, as many as a collector reads at once

Item = TypeVar("Item")


class Place(BaseModel):
    """Nobody else's folder, database and topics."""

    folder: Path
    store_url: str
    kafka: KafkaOptions | None = None

    @property
    def outbox(self) -> Path:
        """Where an outbox lies."""
        return self.folder / "outbox.db"


def batches(items: Sequence[Item], size: int = BATCH) -> Iterator[Sequence[Item]]:
    """The items, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
