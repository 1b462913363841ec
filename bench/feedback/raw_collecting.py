"""Topics into PostgreSQL by kafka-python and COPY alone: `python -m bench.feedback.raw_collecting PLACE_JSON`.

What a collector must do and no more: places on the topics move on when the rows are committed. Nothing is checked.
"""

import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import orjson
import psycopg
from kafka import KafkaConsumer, TopicPartition
from sqlalchemy import Table

from bench.feedback.place import BATCH, Place
from bench.feedback.raw import Rows, copy_rows
from bench.feedback.visible import libpq
from feedback.store import tables


def main(told: str) -> None:
    """Until SIGTERM."""
    place = Place.model_validate_json(told)
    assert place.kafka is not None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    by_topic = {place.kafka.topic("requests"): tables.requests, place.kafka.topic("ratings"): tables.ratings}
    consumer = KafkaConsumer(
        *by_topic,
        bootstrap_servers=list(place.kafka.bootstrap_servers),
        group_id=place.kafka.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=BATCH,
        metrics_enabled=False,
    )
    with closing(psycopg.connect(libpq(place.store_url))) as connection:
        while True:
            found = consumer.poll(timeout_ms=500)
            if found:
                copy_rows(connection, _rows(found, by_topic))
                consumer.commit()


def _rows(found: Mapping[TopicPartition, Sequence[Any]], by_topic: Mapping[str, Table]) -> Rows:
    rows: dict[Table, list[tuple[Any, ...]]] = {}
    for part, records in found.items():
        table = by_topic[part.topic]
        names = [column.name for column in table.columns if column.name != "payload"]
        for record in records:
            event = orjson.loads(record.value)
            event["withdrawn"] = event.get("value") is None
            rows.setdefault(table, []).append((*map(event.get, names), record.value.decode()))
    return rows


if __name__ == "__main__":
    main(sys.argv[1])
