"""The legs of an event's way, and what each is measured against."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

from bench.feedback import ours, raw
from bench.feedback.place import Place

Side = Callable[[Place], AbstractContextManager[ours.Prepare]]


class Leg(NamedTuple):
    """`limit` says what the raw side is; `store` and `kafka` what has to be there."""

    limit: str
    ours: Side
    raw: Side
    store: Literal["sqlite", "postgresql"]
    kafka: bool = False


LEGS: Mapping[str, Leg] = {
    "outbox append": Leg("SQLite executemany", ours.outbox, raw.outbox, "sqlite"),
    "relay → Kafka": Leg("kafka-python alone", ours.relay, raw.kafka, "sqlite", kafka=True),
    "collector → SQLite": Leg("SQLite executemany", ours.collector, raw.sqlite, "sqlite"),
    "collector → PostgreSQL": Leg("PostgreSQL COPY", ours.collector, raw.postgres, "postgresql"),
    "append → visible": Leg("SQLite, kafka-python, COPY", ours.whole, raw.whole, "postgresql", kafka=True),
}
