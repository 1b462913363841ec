"""What is remembered: written as told, read by tenant. No decision is made here."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from alembic.util import CommandError
from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, case, exists, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from feedback.events import AnyEvent, Erased, PolicyChanged, Rating, RequestFinished, Status
from feedback.policies import PolicyStatus, project
from feedback.sqlite import truncate_log
from feedback.store import tables
from feedback.store.admitting import admit
from feedback.store.engine import connect, migrate, upsert

_PAGE = 200  # requests read at a time: each may hold some thousand token ids
_TABLES: dict[type[AnyEvent], Table] = {
    RequestFinished: tables.requests,
    Rating: tables.ratings,
    PolicyChanged: tables.policy_changes,
    Erased: tables.erasures,
}


class StoreError(Exception):
    """The database could not be opened, read or written. A write that raised this has changed nothing."""


@dataclass(frozen=True)
class DeadLetter:
    """A record that is no event, and why."""

    data: bytes
    reason: str


class Store:
    """The database. Every method blocks on it, may be called from any thread, and raises `StoreError` when it fails.

    What belongs to a tenant is only ever read with that tenant's name. Policies are shared by all tenants.
    """

    def __init__(self, engine: Engine) -> None:
        """Use a database that has every migration already; see `open`."""
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> "Store":
        """Open `sqlite:///path/to/file` and bring it up to date. Raises `StoreError`, `ValueError` for another URL."""
        try:
            engine = connect(url)
            migrate(engine)
        except (OSError, SQLAlchemyError, sqlite3.Error, CommandError) as error:
            raise StoreError(f"cannot open the store: {error}") from error
        return cls(engine)

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def write(self, events: Sequence[AnyEvent], dead_letters: Sequence[DeadLetter] = ()) -> None:
        """Write everything in one transaction. What is there already (by `event_id`) stays as it is.

        What an erasure among them, or an earlier one, covers is deleted, or not written.
        """
        now = datetime.now(UTC)
        letters = [
            {"digest": hashlib.sha256(x.data).hexdigest(), "time": now, "reason": x.reason, "data": x.data}
            for x in dead_letters
        ]
        with self.writing() as connection:
            kept, unwanted = admit(connection, events, [x.data for x in dead_letters])
            for kind, table in _TABLES.items():
                _insert(connection, table, [_row(table, event) for event in kept if isinstance(event, kind)])
            _insert(connection, tables.dead_letters, [x for x in letters if x["data"] not in unwanted])

    def scrub(self) -> bool:
        """Leave nothing in SQLite's file of what was erased since the last time; False where there was nothing to do.

        It rebuilds the file, for which writers wait. On PostgreSQL that is the server's own work (VACUUM): nothing is
        done here.
        """
        if self.kind != "sqlite":
            return False
        with self.reading() as connection:
            count = connection.execute(select(func.count()).select_from(tables.erasures)).scalar_one()
        with _as_store_error(), closing(self._engine.raw_connection()) as raw:
            file: Any = raw.driver_connection
            if file.execute("PRAGMA user_version").fetchone()[0] == count:
                return False
            file.execute("VACUUM")
            if not truncate_log(file):
                raise StoreError("another process is using the store: it is scrubbed later")
            file.execute(f"PRAGMA user_version = {count}")
        return True

    def request(self, request_id: str, tenant: str) -> RequestFinished | None:
        """The request of this id, if it has landed and is this tenant's."""
        table = tables.requests
        query = select(table.c.payload).where(table.c.tenant == tenant, table.c.request_id == request_id)
        with self.reading() as connection:
            payload = connection.execute(query.order_by(table.c.time.desc()).limit(1)).scalar_one_or_none()
        return None if payload is None else RequestFinished.model_validate_json(payload)

    def requests(
        self,
        agent: str | None = None,
        *,
        tenant: str,
        episode_id: str | None = None,
        policy: str | None = None,
        status: Status | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[RequestFinished]:
        """The requests that match, oldest first, from `since` (included) to `until` (not). None: no restriction.

        Reads a page at a time and holds no transaction in between, however long the reader takes.
        """
        c = tables.requests.c
        wanted = [c.tenant == tenant, *_between(c.time, since, until)]
        for column, value in (
            (c.agent, agent),
            (c.episode_id, episode_id),
            (c.policy, policy),
            (c.status, status),
        ):
            if value is not None:
                wanted.append(column == value)
        query = select(c.time, c.event_id, c.payload).order_by(c.time, c.event_id).limit(_PAGE)
        after: list[ColumnElement[bool]] = []
        while True:
            with self.reading() as connection:
                page = connection.execute(query.where(*wanted, *after)).all()
            for row in page:
                yield RequestFinished.model_validate_json(row.payload)
            if len(page) < _PAGE:
                return
            after = [
                or_(c.time > page[-1].time, and_(c.time == page[-1].time, c.event_id > page[-1].event_id))
            ]

    def ratings(
        self,
        *,
        tenant: str,
        request_id: str | None = None,
        name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Rating]:
        """Every rating that matches, superseded ones too, oldest first, whether its request has landed or not."""
        c = tables.ratings.c
        query = select(c.payload).where(
            *_ratings_of(tenant, request_id, name), *_between(c.time, since, until)
        )
        return self._ratings(query.order_by(c.time, c.event_id))

    def current_ratings(
        self,
        *,
        tenant: str,
        agent: str | None = None,
        request_id: str | None = None,
        name: str | None = None,
        rater: str | None = None,
    ) -> Iterator[Rating]:
        """What everyone thinks now: the last rating by each rater on each target and metric, oldest first.

        Withdrawn ones are not among them.

        With `agent`, only ratings whose request has landed, for the request says which agent answered.
        """
        c = tables.ratings.c
        episode = case(
            (c.request_id.is_(None), c.episode_id)
        )  # of a request, the episode is not always known
        newest_first = func.row_number().over(
            partition_by=(c.request_id, episode, c.call, c.rater, c.name),
            order_by=(c.time.desc(), c.event_id.desc()),
        )
        wanted = _ratings_of(tenant, request_id, name)
        if rater is not None:
            wanted.append(c.rater == rater)
        if agent is not None:
            r = tables.requests.c
            wanted.append(exists().where(r.tenant == tenant, r.request_id == c.request_id, r.agent == agent))
        ranked = (
            select(c.time, c.event_id, c.payload, c.withdrawn, newest_first.label("rank"))
            .where(*wanted)
            .subquery()
        )
        query = select(ranked.c.payload).where(ranked.c.rank == 1, ~ranked.c.withdrawn)
        return self._ratings(query.order_by(ranked.c.time, ranked.c.event_id))

    def policy_changes(self, agent: str) -> list[PolicyChanged]:
        """Everything that ever happened to the agent's policies, oldest first."""
        c = tables.policy_changes.c
        query = select(c.payload).where(c.agent == agent).order_by(c.time, c.event_id)
        with self.reading() as connection:
            return [
                PolicyChanged.model_validate_json(payload) for payload in connection.execute(query).scalars()
            ]

    def policies(self, agent: str) -> dict[str, PolicyStatus]:
        """The state of each of the agent's policies, by its name, with its history."""
        return project(self.policy_changes(agent))

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Every record that was no event, oldest first. For operators: nobody knows whose they are."""
        c = tables.dead_letters.c
        with self.reading() as connection:
            rows = connection.execute(select(c.data, c.reason).order_by(c.time, c.digest)).all()
        return (DeadLetter(row.data, row.reason) for row in rows)

    def dead_letter_count(self) -> int:
        """How many dead letters there are; quick, unlike `counts`."""
        with self.reading() as connection:
            return connection.execute(select(func.count()).select_from(tables.dead_letters)).scalar_one()

    def counts(self) -> dict[str, int]:
        """Rows of every tenant together, by table: those of the events, and `dead_letters`."""
        with self.reading() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (*_TABLES.values(), tables.dead_letters)
            }

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction to read in. Raises `StoreError`."""
        with _as_store_error(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back by an exception. Raises `StoreError`."""
        with (
            _as_store_error(),
            self._engine.connect().execution_options(write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def _ratings(self, query: Any) -> Iterator[Rating]:
        with self.reading() as connection:
            payloads = connection.execute(query).scalars().all()
        return (Rating.model_validate_json(payload) for payload in payloads)


@contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:  # the latter from the pragmas of a new connection
        raise StoreError(str(error.__cause__ or error)) from error


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(upsert(connection, table).on_conflict_do_nothing(), rows)


def _row(table: Table, event: AnyEvent) -> dict[str, Any]:
    columns = {
        column.name: getattr(event, column.name) for column in table.columns if column.name != "payload"
    }
    return {**columns, "payload": event.model_dump_json()}


def _between(
    column: ColumnElement[Any], since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    bounds = []
    if since is not None:
        bounds.append(column >= since)
    if until is not None:
        bounds.append(column < until)
    return bounds


def _ratings_of(tenant: str, request_id: str | None, name: str | None) -> list[ColumnElement[bool]]:
    c = tables.ratings.c
    wanted = [c.tenant == tenant]
    if request_id is not None:
        wanted.append(c.request_id == request_id)
    if name is not None:
        wanted.append(c.name == name)
    return wanted
