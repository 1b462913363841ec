"""Each leg as bare libraries go it: the same bytes or rows, as durable, in the same batches, and nothing is looked at.

What a side takes is as in `bench.feedback.ours`; rows are made beforehand, off the clock.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, make_url

from bench.feedback.ours import Prepare
from bench.feedback.place import APPENDERS, Place, batches
from feedback import events as vocabulary
from feedback.bus.kafka.records import event_record
from feedback.sqlite import prepare as durable
from feedback.store import Store, tables

Rows = Mapping[Table, Sequence[tuple[Any, ...]]]


@contextmanager
def outbox(place: Place) -> Iterator[Prepare]:
    """`executemany` of as many events as are appended at once."""
    with closing(sqlite3.connect(place.outbox)) as connection:
        durable(connection)
        connection.execute(
            "CREATE TABLE outbox (sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, body BLOB NOT NULL)"
        )
        insert = "INSERT INTO outbox (time, body) VALUES (?, ?)"

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            groups = [[(0.0, body) for body in batch] for batch in batches(events, APPENDERS)]
            return lambda: _transactions(connection, [{insert: group} for group in groups])

        yield prepare


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
            return lambda: _transactions(connection, groups)

        yield prepare


@contextmanager
def postgres(place: Place) -> Iterator[Prepare]:
    """COPY of the store's own rows."""
    import psycopg  # noqa: PLC0415  # may not be installed

    Store.open(place.store_url).close()
    url = make_url(place.store_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg.connect(url)) as connection:

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            groups = [rows(batch) for batch in batches(events)]

            def run() -> None:
                for group in groups:
                    with connection.cursor() as cursor:
                        for table, found in group.items():
                            with cursor.copy(f"COPY {table.name} ({_columns(table)}) FROM STDIN") as copy:
                                for row in found:
                                    copy.write_row(row)
                    connection.commit()

            return run

        yield prepare


@contextmanager
def kafka(place: Place) -> Iterator[Prepare]:
    """kafka-python with the settings of our producer, told to wait once, at the end."""
    from kafka import KafkaProducer  # noqa: PLC0415  # may not be installed

    assert place.kafka is not None
    options = place.kafka
    producer = KafkaProducer(
        bootstrap_servers=list(options.bootstrap_servers),
        acks="all",
        enable_idempotence=True,
        compression_type=options.compression,
        batch_size=2**19,
        linger_ms=1_000,
        metrics_enabled=False,
    )
    with closing(producer):

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            records = [event_record(body, options) for body in events]
            headers = [[(name, value.encode()) for name, value in each.headers.items()] for each in records]

            def run() -> None:
                sent = [
                    producer.send(record.topic, record.value, record.key, head)
                    for record, head in zip(records, headers, strict=True)
                ]
                producer.flush()
                for future in sent:
                    future.get()

            return run

        yield prepare


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


def _transactions(
    connection: sqlite3.Connection, groups: Sequence[Mapping[str, Sequence[tuple[Any, ...]]]]
) -> None:
    for group in groups:
        connection.execute("BEGIN IMMEDIATE")
        for insert, found in group.items():
            connection.executemany(insert, found)
        connection.execute("COMMIT")
