"""Deletes what is older than its tenant keeps it: requests, ratings, kept answers, dead letters.

Policies and erasures stay, and what waits in an outbox is deleted when it has come and the next round is made. Each
step is one small transaction, and finds what it deletes by an index.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Table, delete, func, select, tuple_

from feedback.retention import RetentionOptions
from feedback.store.store import Store
from feedback.store.tables import dead_letters, ratings, replies, requests

_AT_ONCE = 500


class Deleted(NamedTuple):
    """Rows of one step. `tenant` is None for dead letters: nobody knows whose they are."""

    tenant: str | None
    table: str
    rows: int


class Retention:
    """What a store does not keep for ever. `replies_for`: for how long answers are kept for their Idempotency-Key."""

    def __init__(self, store: Store, options: RetentionOptions, *, replies_for: timedelta) -> None:
        self._store = store
        self._options = options
        self._replies_for = replies_for

    def steps(self) -> Iterator[Deleted]:
        """One round; each step blocks on the database, may delete nothing, and raises `StoreError` when it fails."""
        now = datetime.now(UTC)
        shortest = self._options.shortest
        if shortest is None:
            return
        yield from self._older(dead_letters, None, dead_letters.c.time < now - shortest)
        for table in (requests, ratings, replies):
            for tenant in self._tenants(table):
                age = self._options.of(tenant)
                if age is None:
                    continue
                old = (
                    table.c.expires < now - age + self._replies_for
                    if table is replies
                    else table.c.time < now - age
                )
                yield from self._older(table, tenant, table.c.tenant == tenant, old)

    def _tenants(self, table: Table) -> Iterator[str]:
        """From one to the next by the index, however many rows each of them has."""
        last = ""
        while True:
            with self._store.reading() as connection:
                query = select(func.min(table.c.tenant)).where(table.c.tenant > last)
                tenant = connection.execute(query).scalar_one()
            if tenant is None:
                return
            yield tenant
            last = tenant

    def _older(self, table: Table, tenant: str | None, *old: ColumnElement[bool]) -> Iterator[Deleted]:
        keys = list(table.primary_key.columns)
        some = select(*keys).where(*old).limit(_AT_ONCE)
        while True:
            with self._store.writing() as connection:
                found = connection.execute(some).all()
                if found:
                    gone = tuple_(*keys).in_([tuple(row) for row in found])
                    connection.execute(delete(table).where(gone))
            if found:
                yield Deleted(tenant, table.name, len(found))
            if len(found) < _AT_ONCE:
                return
