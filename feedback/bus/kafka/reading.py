"""Topics from a time on to where they end now, outside any consumer group: nobody's place in them changes."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from kafka import KafkaConsumer, TopicPartition

from feedback.bus.base import BusError
from feedback.bus.kafka.clients import as_bus_error, opened
from feedback.bus.kafka.options import KafkaOptions

_SILENT_SECONDS = 15.0  # Kafka has more and does not send it: it is down


class Read(Protocol):
    """What kafka-python hands out of a record, as far as it is looked at here."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Page(NamedTuple):
    """Some records, in the order of each partition, and how many are left behind them."""

    records: Sequence[Read]
    left: int


def read(options: KafkaOptions, topics: Sequence[str], since: datetime | None = None) -> Iterator[Page]:
    """Read these topics (by their names on the cluster), from `since` or their beginning. Blocks; raises `BusError`."""
    with as_bus_error(options):
        consumer = opened(
            KafkaConsumer,
            options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            yield from _pages(consumer, [part for topic in topics for part in _parts(consumer, topic)], since)
        finally:
            consumer.close(autocommit=False)


def _parts(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise BusError(f"there is no topic {topic}: `flywheel kafka init` makes it")
    return [TopicPartition(topic, number) for number in sorted(numbers)]


def _pages(consumer: KafkaConsumer, parts: list[TopicPartition], since: datetime | None) -> Iterator[Page]:
    ends = consumer.end_offsets(parts)
    begins = consumer.beginning_offsets(parts)
    if since is not None:
        found = consumer.offsets_for_times(dict.fromkeys(parts, round(since.timestamp() * 1_000)))
        begins = {part: found[part].offset if found[part] else ends[part] for part in parts}
    unread = [part for part in parts if begins[part] < ends[part]]
    if not unread:
        return
    consumer.assign(unread)
    for part in unread:
        consumer.seek(part, begins[part])
    heard = time.monotonic()
    while unread:
        came = consumer.poll(timeout_ms=500)
        if came:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENT_SECONDS:
            raise BusError(f"nothing has come for {_SILENT_SECONDS:g} s of what {unread[0].topic} holds")
        places = {part: consumer.position(part) for part in unread}
        unread = [part for part in unread if places[part] < ends[part]]
        left = sum(ends[part] - places[part] for part in unread)
        yield Page([record for records in came.values() for record in records], left)
