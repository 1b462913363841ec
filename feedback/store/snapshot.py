"""Everything that is in the store at one moment, one event after another, however much it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, func, select

from feedback.events import PolicyChanged, Rating, RequestFinished
from feedback.store.store import Store, between, newest_first
from feedback.store.tables import policy_changes, ratings, requests

_PAGE = 200  # rows read at a time: a request may hold some thousand token ids


class Said(NamedTuple):
    """A rating, and whether it stands: its rater has said nothing later on the same target and metric."""

    rating: Rating
    current: bool


@dataclass(frozen=True)
class Extent:
    """From `since` (included) to `until` (not), of a tenant or of all. None: no restriction."""

    tenant: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Snapshot:
    """Reads while others write, and sees nothing of that. By tenant, then oldest first; see `snapshot`."""

    def __init__(self, connection: Connection, extent: Extent) -> None:
        self._connection = connection
        self._extent = extent

    def requests(self) -> Iterator[RequestFinished]:
        """What was asked and answered."""
        for row in self._rows(select(requests.c.payload).where(*self._within(requests)), requests.c):
            yield RequestFinished.model_validate_json(row.payload)

    def ratings(self) -> Iterator[Said]:
        """What was said of it, superseded or withdrawn or not. What stands is decided by all ratings that there are."""
        c = ratings.c
        ranked = select(c.tenant, c.time, c.event_id, c.payload, newest_first().label("rank")).subquery()
        query = select(ranked.c.payload, ranked.c.rank).where(*self._within(ranked))
        for row in self._rows(query, ranked.c):
            rating = Rating.model_validate_json(row.payload)
            yield Said(rating, row.rank == 1 and not rating.withdrawn)

    def policy_changes(self) -> Iterator[PolicyChanged]:
        """What operators did. All tenants share the policies: a tenant does not restrict them."""
        c = policy_changes.c
        wanted = between(c.time, self._extent.since, self._extent.until)
        for row in self._rows(select(c.payload).where(*wanted), c):
            yield PolicyChanged.model_validate_json(row.payload)

    def counts(self) -> dict[str, int]:
        """How many of each there are, by table."""
        return {
            "requests": self._count(requests, self._within(requests)),
            "ratings": self._count(ratings, self._within(ratings)),
            "policy_changes": self._count(
                policy_changes, between(policy_changes.c.time, self._extent.since, self._extent.until)
            ),
        }

    def _count(self, table: Table, wanted: list[ColumnElement[bool]]) -> int:
        return self._connection.execute(select(func.count()).select_from(table).where(*wanted)).scalar_one()

    def _within(self, table: Any) -> list[ColumnElement[bool]]:
        wanted = between(table.c.time, self._extent.since, self._extent.until)
        if self._extent.tenant is not None:
            wanted.append(table.c.tenant == self._extent.tenant)
        return wanted

    def _rows(self, query: Select[Any], c: Any) -> Iterator[Row[Any]]:
        ordered = query.order_by(c.tenant, c.time, c.event_id)
        return iter(self._connection.execute(ordered, execution_options={"yield_per": _PAGE}))


@contextmanager
def snapshot(store: Store, extent: Extent) -> Iterator[Snapshot]:
    """One transaction to read everything in. Blocks; raises `StoreError`.

    It may last: on PostgreSQL nothing that is deleted meanwhile is cleaned up before its end, in SQLite the log grows.
    """
    with store.reading() as connection:
        if connection.dialect.name == "postgresql":
            _of_one_moment(connection)
        yield Snapshot(connection, extent)


def _of_one_moment(connection: Connection) -> None:
    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
