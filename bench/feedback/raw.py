"""Each leg as bare libraries go it: the same bytes or rows, as durable, in the same batches, and nothing is looked at.

What a side takes is as in `bench.feedback.ours`; rows are made beforehand, off the clock.
"""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import Table, make_url

from bench.feedback.ours import Prepare, ended
from bench.feedback.place import APPENDERS, Place, batches
from bench.feedback.visible import libpq, visible
from feedback import events as vocabulary
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.records import event_record
from feedback.sqlite import prepare as durable
from feedback.store import Store, tables

Rows = Mapping[Table, Sequence[tuple[Any, ...]]]


@contextmanager
def outbox(place: Place) -> Iterator[Prepare]:
    """`executemany` of as many events as are appended at once."""
    with _outbox(place) as insert:

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            groups = [[(0.0, body) for body in batch] for batch in batches(events, APPENDERS)]

            def run() -> None:
                for group in groups:
                    insert(group)

            return run

        yield prepare


@contextmanager
def _outbox(place: Place) -> Iterator[Callable[[Sequence[tuple[float, bytes]]], None]]:
    insert = "INSERT INTO outbox (time, body) VALUES (?, ?)"
    with closing(sqlite3.connect(place.outbox)) as connection:
        durable(connection)
        connection.execute(
            "CREATE TABLE outbox (sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, body BLOB NOT NULL)"
        )
        yield lambda group: _transaction(connection, {insert: group})


@contextmanager
def sqlite(place: Place) -> Iterator[Prepare]:
    """`executemany` of the store's own rows."""
    Store.open(place.store_url).close()  # makes the tables, with their indexes
    with closing(sqlite3.connect(str(make_url(place.store_url).database))) as connection:
        durable(connection)

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            groups = [
                {_insert(table): [_naive(row) for row in found] for table, found in rows(batch).items()}
                for batch in batches(events)
            ]

            def run() -> None:
                for group in groups:
                    _transaction(connection, group)

            return run

        yield prepare


@contextmanager
def postgres(place: Place) -> Iterator[Prepare]:
    """COPY of the store's own rows."""
    Store.open(place.store_url).close()
    with closing(psycopg.connect(libpq(place.store_url))) as connection:

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            groups = [rows(batch) for batch in batches(events)]

            def run() -> None:
                for group in groups:
                    copy_rows(connection, group)

            return run

        yield prepare


def copy_rows(connection: psycopg.Connection[Any], group: Rows) -> None:
    """One transaction."""
    with connection.cursor() as cursor:
        for table, found in group.items():
            with cursor.copy(f"COPY {table.name} ({_columns(table)}) FROM STDIN") as copy:
                for row in found:
                    copy.write_row(row)
    connection.commit()


@contextmanager
def kafka(place: Place) -> Iterator[Prepare]:
    """kafka-python with the settings of our producer, told to wait once, at the end."""
    assert place.kafka is not None
    options = place.kafka
    with closing(_producer(options)) as producer:

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            records = [sendable(body, options) for body in events]

            def run() -> None:
                sent = [producer.send(*record) for record in records]
                producer.flush()
                for future in sent:
                    future.get()

            return run

        yield prepare


@contextmanager
def whole(place: Place) -> Iterator[Prepare]:
    """The same libraries one behind the other, in two processes: SQLite, kafka-python; kafka-python, COPY."""
    assert place.kafka is not None
    options = place.kafka
    Store.open(place.store_url).close()
    collecting = (sys.executable, "-m", "bench.feedback.raw_collecting", place.model_dump_json())
    with ExitStack() as stack:
        stack.callback(ended, subprocess.Popen(collecting))
        seen = stack.enter_context(visible(place.store_url))
        insert = stack.enter_context(_outbox(place))
        producer = stack.enter_context(closing(_producer(options)))

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            groups = [
                ([(0.0, body) for body in batch], [sendable(body, options) for body in batch])
                for batch in batches(events, APPENDERS)
            ]

            def run() -> None:
                for group, records in groups:
                    insert(group)
                    for record in records:
                        producer.send(*record)
                producer.flush()
                seen(events)

            return run

        yield prepare


def sendable(body: bytes, options: KafkaOptions) -> tuple[str, bytes, bytes, list[tuple[str, bytes]]]:
    """What kafka-python's `send` takes: topic, value, key, headers."""
    record = event_record(body, options)
    headers = [(name, value.encode()) for name, value in record.headers.items()]
    return record.topic, record.value, record.key, headers


def _producer(options: KafkaOptions) -> Any:
    from kafka import KafkaProducer  # noqa: PLC0415  # may not be installed

    return KafkaProducer(
        bootstrap_servers=list(options.bootstrap_servers),
        acks="all",
        enable_idempotence=True,
        compression_type=options.compression,
        batch_size=2**19,
        linger_ms=1_000,
        metrics_enabled=False,
    )


def rows(batch: Sequence[bytes]) -> Rows:
    """What the store makes of events, by table."""
    found: dict[Table, list[tuple[Any, ...]]] = {}
    for body in batch:
        event = vocabulary.parse(body)
        table = tables.requests if isinstance(event, vocabulary.RequestFinished) else tables.ratings
        columns = [getattr(event, column.name) for column in table.columns if column.name != "payload"]
        found.setdefault(table, []).append((*columns, body.decode()))
    return found


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _insert(table: Table) -> str:
    marks = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({marks})"  # noqa: S608  # our own names


def _naive(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.astimezone(UTC).replace(tzinfo=None).isoformat(" ") if isinstance(value, datetime) else value
        for value in row
    )


def _transaction(connection: sqlite3.Connection, group: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for insert, found in group.items():
        connection.executemany(insert, found)
    connection.execute("COMMIT")
