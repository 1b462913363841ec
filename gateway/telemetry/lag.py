"""How far Kafka's collectors are behind: read every few seconds, beside all else, so that no scrape waits for Kafka."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from feedback.bus.base import BusError
from feedback.bus.kafka.options import KafkaOptions

_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Lag:
    """`by_topic` is the newest; None where there is no Kafka, or it does not answer, or another worker asks it."""

    def __init__(self) -> None:
        self.by_topic: Mapping[str, int] | None = None


@asynccontextmanager
async def watched(options: KafkaOptions | None) -> AsyncIterator[Lag]:
    """Read it until the end of the block."""
    lag = Lag()
    if options is None:
        yield lag
        return
    task = asyncio.create_task(_watch(lag, options), name="lag")
    try:
        yield lag
    finally:
        task.cancel()


async def _watch(lag: Lag, options: KafkaOptions) -> None:
    from feedback.bus.kafka.lag import lag as read  # noqa: PLC0415  # an extra, and slow to import

    while True:
        try:
            lag.by_topic = await asyncio.to_thread(read, options)
        except BusError as error:
            if lag.by_topic is not None:  # an outage is told once
                _log.warning("the lag of the collectors is not known: %s", error)
            lag.by_topic = None
        await asyncio.sleep(_SECONDS)
