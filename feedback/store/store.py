"""What is remembered: written as told, read by tenant. No decision is made here."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from alembic.util import CommandError
from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, case, exists, func, or_, select, tuple_
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from feedback.events import AnyEvent, Erased, PolicyChanged, Rating, RequestFinished, Status
from feedback.policies import TOLD, PolicyStatus, project
from feedback.sqlite import truncate_log
from feedback.store import tables
from feedback.store.admitting import admit
from feedback.store.engine import connect, migrate
from feedback.store.insert import insert_new

_PAGE = 200  # requests read at a time: each may hold some thousand token ids
_TABLES: dict[type[AnyEvent], Table] = {
    RequestFinished: tables.requests,
    Rating: tables.ratings,
    PolicyChanged: tables.policy_changes,
    Erased: tables.erasures,
}


class StoreError(Exception):
    """The database could not be opened, read or written. A write that raised this has changed nothing."""


class UnstorableError(StoreError):
    """What was to be written is nothing that this database can hold, however often it is tried."""


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
        """Open `sqlite:///path/to/file` or `postgresql://user@host/database` and bring it up to date.

        Raises `StoreError`, and `ValueError` for another kind of database.
        """
        try:
            engine = connect(url)
            with ExitStack() as unless_all_is_well:
                unless_all_is_well.callback(engine.dispose)
                with _as_store_error(engine):
                    migrate(engine)
                unless_all_is_well.pop_all()
        except (OSError, ArgumentError, CommandError, StoreError) as error:
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

        What an erasure among them, or an earlier one, covers is deleted, or not written. Raises `UnstorableError` where
        it is a record's own fault.
        """
        now = datetime.now(UTC)
        with self.writing() as connection:
            kept, unwanted = admit(connection, events, [letter.data for letter in dead_letters])
            letters = [
                (hashlib.sha256(letter.data).hexdigest(), now, letter.reason, letter.data)
                for letter in dead_letters
                if letter.data not in unwanted
            ]
            for kind, table in _TABLES.items():
                insert_new(connection, table, _rows(table, [x for x in kept if isinstance(x, kind)]))
            insert_new(connection, tables.dead_letters, letters)

    def scrub(self) -> bool:
        """Leave nothing in SQLite's file of what was erased since the last time; False where there was nothing to do.

        It rebuilds the file, for which writers wait. On PostgreSQL that is the server's own work (VACUUM): nothing is
        done here.
        """
        if self.kind != "sqlite":
            return False
        with self.reading() as connection:
            count = connection.execute(select(func.count()).select_from(tables.erasures)).scalar_one()
        with _as_store_error(self._engine), closing(self._engine.raw_connection()) as raw:
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

    def newest(
        self,
        tenant: str,
        *,
        episode_id: str | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
    ) -> RequestFinished | None:
        """The newest request of an episode, of a trace, or of a span, if one of this tenant has landed.

        Where there are some of this gateway, of these: what others told of the same trace does not stand before them.
        """
        c = tables.requests.c
        given = ((c.episode_id, episode_id), (c.trace_id, trace_id), (c.span_id, span_id))
        wanted = [column == value for column, value in given if value is not None]
        others = c.policy.contains(TOLD, autoescape=True)
        query = select(c.payload).where(c.tenant == tenant, *wanted)
        query = query.order_by(others, c.time.desc(), c.event_id.desc())
        with self.reading() as connection:
            payload = connection.execute(query.limit(1)).scalar_one_or_none()
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
        wanted = [c.tenant == tenant, *between(c.time, since, until)]
        for column, value in (
            (c.agent, agent),
            (c.episode_id, episode_id),
            (c.policy, policy),
            (c.status, status),
        ):
            if value is not None:
                wanted.append(column == value)
        query = select(c.time, c.event_id, c.payload).order_by(c.time, c.event_id).limit(_PAGE)
        after: list[ColumnElement[bool]] = []  # a comparison of rows, which an index can follow
        while True:
            with self.reading() as connection:
                page = connection.execute(query.where(*wanted, *after)).all()
            for row in page:
                yield RequestFinished.model_validate_json(row.payload)
            if len(page) < _PAGE:
                return
            after = [tuple_(c.time, c.event_id) > (page[-1].time, page[-1].event_id)]

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
            *_ratings_of(tenant, request_id, name), *between(c.time, since, until)
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

        With `agent`, only ratings whose request, or of whose episode a request, has landed: it says who answered.
        """
        c = tables.ratings.c
        wanted = _ratings_of(tenant, request_id, name)
        if rater is not None:
            wanted.append(c.rater == rater)
        if agent is not None:
            wanted.append(of_agent(agent))
        ranked = (
            select(c.time, c.event_id, c.payload, c.withdrawn, newest_first().label("rank"))
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
        with _as_store_error(self._engine), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back by an exception. Raises `StoreError`."""
        with (
            _as_store_error(self._engine),
            self._engine.connect().execution_options(write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def _ratings(self, query: Any) -> Iterator[Rating]:
        with self.reading() as connection:
            payloads = connection.execute(query).scalars().all()
        return (Rating.model_validate_json(payload) for payload in payloads)


@contextmanager
def _as_store_error(engine: Engine) -> Iterator[None]:
    assert engine.dialect.dbapi is not None
    try:
        yield
    except (SQLAlchemyError, engine.dialect.dbapi.Error, OverflowError) as error:
        cause = error.__cause__ or error  # the driver's, where SQLAlchemy has wrapped it
        state = getattr(cause, "sqlstate", None) or ""
        hopeless = isinstance(cause, OverflowError | engine.dialect.dbapi.DataError) or state.startswith("54")
        raise (UnstorableError if hopeless else StoreError)(_in_words(cause)) from error


def _in_words(error: BaseException) -> str:
    """Without the details that PostgreSQL gives on further lines: they quote what is in the row."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return primary or " ".join(str(error).split())


def _rows(table: Table, events: Sequence[AnyEvent]) -> list[tuple[Any, ...]]:
    *asked, last = table.columns.keys()
    assert last == "payload"
    columns = attrgetter(*asked)
    return [(*columns(event), event.model_dump_json()) for event in events]


def newest_first() -> ColumnElement[int]:
    """The place of a row of ratings among all that its rater said on the same target and metric; the last word is 1."""
    c = tables.ratings.c
    episode = case((c.request_id.is_(None), c.episode_id))  # of a request, the episode is not always known
    return func.row_number().over(
        partition_by=(c.tenant, c.request_id, episode, c.call, c.rater, c.name),
        order_by=(c.time.desc(), c.event_id.desc()),
    )


def between(
    column: ColumnElement[Any], since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    """From `since` (included) to `until` (not)."""
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


def of_agent(agent: str) -> ColumnElement[bool]:
    """Whether this agent answered what a row of ratings is about: the request, or one of the episode."""
    r, c = tables.requests.c, tables.ratings.c
    its = (r.tenant == c.tenant, r.agent == agent)
    return or_(
        exists().where(*its, r.request_id == c.request_id),
        and_(c.request_id.is_(None), exists().where(*its, r.episode_id == c.episode_id)),
    )
