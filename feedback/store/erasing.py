"""Erasures, as the store carries them out: what is there goes, and what comes later is kept out.

Both in the transaction that writes the erasure, or the late event. Nothing is said here of what events hold beside
ids: a person's words in another person's conversation are not found by whose they were.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, and_, delete, func, literal, select, update
from sqlalchemy.types import LargeBinary

from feedback.events import AnyEvent, Erased, Rating, RequestFinished
from feedback.store.engine import upsert
from feedback.store.tables import (
    api_keys,
    background_responses,
    dead_letters,
    deleted_responses,
    erasures,
    forgotten,
    ratings,
    replies,
    requests,
)

_AT_ONCE = 500  # ids in one statement: databases have a limit
_KEY_ID = 16  # see `feedback.store.keys`
_LOCK = 0x65726173  # on PostgreSQL: whoever writes events shares it, an erasure has it alone
_BLANK = "[erased]"
_MENTION = re.compile(rb'"(tenant|caller|rater|request_id)"\s*:\s*("(?:[^"\\]|\\.){1,800}")')


def names_of(rater: str) -> set[str]:
    """By which persons a rater is meant: `crm/ann` is the key's owner `crm`, their `ann`, and itself."""
    owners = {rater[:at] for at, character in enumerate(rater) if character == "/"}
    return ({rater, rater.partition("/")[2]} | owners) - {""}


def digest(tenant: str, target: str) -> str:
    """What is remembered of a request or an episode that was erased."""
    return hashlib.sha256(f"{tenant}\0{target}".encode()).hexdigest()


class Known(NamedTuple):
    """Of one tenant: until when each person is erased, the requests that are, and the digests that are remembered."""

    persons: dict[str, datetime]
    requests: set[str]
    digests: dict[str, datetime]

    def covers(self, tenant: str, event: AnyEvent) -> bool:
        """Whether the event must not be kept."""
        if isinstance(event, RequestFinished):
            return self._gone(tenant, event.request_id) or self._said({event.caller}, event.time)
        if isinstance(event, Rating):
            about = (
                self._gone(tenant, event.request_id)
                if event.request_id is not None
                else event.time <= self._until(tenant, str(event.episode_id))
            )
            return about or self._said(names_of(event.rater), event.time)
        return False

    def mentioned(self, tenant: str, names: Iterable[str], ids: Iterable[str]) -> bool:
        """Whether a dead letter with these names and ids in it must not be kept."""
        return any(name in self.persons for name in names) or any(self._gone(tenant, one) for one in ids)

    def _gone(self, tenant: str, request_id: str) -> bool:
        # An id is never used again: what comes with it later, or finishes later, is the same request.
        return request_id in self.requests or digest(tenant, request_id) in self.digests

    def _until(self, tenant: str, target: str) -> datetime:
        return self.digests.get(digest(tenant, target), datetime.min.replace(tzinfo=UTC))

    def _said(self, names: Collection[str], time: datetime) -> bool:
        return any(name in self.persons and time <= self.persons[name] for name in names)


def admit(
    connection: Connection, events: Sequence[AnyEvent], letters: Sequence[bytes]
) -> tuple[Sequence[AnyEvent], set[bytes]]:
    """Carry out the erasures among the events. Returns the events that may be written, and the letters that may not."""
    given = [event for event in events if isinstance(event, Erased)]
    if connection.dialect.name == "postgresql":  # else a request that is just being written would escape
        lock = func.pg_advisory_xact_lock if given else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(_LOCK)))
    if not given and connection.execute(select(erasures.c.event_id).limit(1)).first() is None:
        return events, set()
    for erased in _new(connection, given):
        _erase(connection, erased)
    known = _known(connection, events, letters, given)
    kept: list[AnyEvent] = []
    late: defaultdict[str, list[RequestFinished]] = defaultdict(list)
    for event in events:
        if not known[event.tenant].covers(event.tenant, event):
            kept.append(event)
        elif isinstance(event, RequestFinished):
            late[event.tenant].append(event)
    now = datetime.now(UTC)
    for tenant, gone in late.items():
        others = {e.episode_id for e in kept if isinstance(e, RequestFinished) and e.tenant == tenant}
        until = max(known[tenant].persons.get(event.caller, now) for event in gone)
        targets = _forget(connection, tenant, [(e.request_id, e.episode_id) for e in gone], until, spared=others)
        kept = [
            e
            for e in kept
            if not (isinstance(e, Rating) and e.tenant == tenant and _target(e) in targets and e.time <= until)
        ]
    unwanted = set()
    for letter in letters:
        tenant, names, ids = _mentions(letter)
        if tenant is not None and known[tenant].mentioned(tenant, names, ids):
            unwanted.add(letter)
    return kept, unwanted


def _target(rating: Rating) -> str:
    return rating.request_id or str(rating.episode_id)


def _new(connection: Connection, given: Sequence[Erased]) -> Iterator[Erased]:
    """Those that have not been carried out before: a replay brings all of them again."""
    ids = [erased.event_id for erased in given]
    done = set(
        connection.execute(select(erasures.c.event_id).where(erasures.c.event_id.in_(ids))).scalars()
    )
    return (erased for erased in given if erased.event_id not in done)


def _known(
    connection: Connection, events: Sequence[AnyEvent], letters: Sequence[bytes], given: Sequence[Erased]
) -> defaultdict[str, Known]:
    """All that the store and this batch know of erasures that could cover the events: a few look-ups by index."""
    persons: defaultdict[str, set[str]] = defaultdict(set)
    targets: defaultdict[str, set[str]] = defaultdict(set)
    for event in events:
        if isinstance(event, RequestFinished):
            persons[event.tenant].add(event.caller)
            targets[event.tenant].add(event.request_id)
        elif isinstance(event, Rating):
            persons[event.tenant] |= names_of(event.rater)
            targets[event.tenant].add(_target(event))
    for letter in letters:
        tenant, names, ids = _mentions(letter)
        if tenant is not None:
            persons[tenant] |= names
            targets[tenant] |= ids
    known: defaultdict[str, Known] = defaultdict(lambda: Known({}, set(), {}))
    e = erasures.c
    for tenant in persons.keys() | targets.keys():
        found = known[tenant]
        for some in _some(persons[tenant]):
            query = select(e.person, e.time).where(e.tenant == tenant, e.person.in_(some))
            for person, time in connection.execute(query):
                found.persons[person] = max(time, found.persons.get(person, time))
        for some in _some(targets[tenant]):
            found.requests.update(
                connection.execute(
                    select(e.request_id).where(e.tenant == tenant, e.request_id.in_(some))
                ).scalars()
            )
            found.digests.update(remembered(connection, tenant, some))
    for erased in given:
        if erased.person is not None:
            persons_of = known[erased.tenant].persons
            persons_of[erased.person] = max(erased.time, persons_of.get(erased.person, erased.time))
        else:
            known[erased.tenant].requests.add(str(erased.request_id))
    return known


def remembered(connection: Connection, tenant: str, targets: Collection[str]) -> dict[str, datetime]:
    """Of these requests and episodes, the digests of those that were erased, each with the erasure's time."""
    found: dict[str, datetime] = {}
    for some in _some({digest(tenant, target) for target in targets}):
        query = select(forgotten.c.digest, forgotten.c.time).where(forgotten.c.digest.in_(some))
        found |= {row.digest: row.time for row in connection.execute(query)}
    return found


def _some(values: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(values)
    return (ordered[start : start + _AT_ONCE] for start in range(0, len(ordered), _AT_ONCE))


def _erase(connection: Connection, erased: Erased) -> None:
    tenant = erased.tenant
    r = requests.c
    query = select(r.request_id, r.episode_id).where(*covered(erased)).limit(_AT_ONCE)
    while rows := [tuple(row) for row in connection.execute(query)]:
        _forget(connection, tenant, rows, erased.time)
    if erased.request_id is not None:
        _forget(connection, tenant, [(erased.request_id, None)], erased.time)
    connection.execute(delete(replies).where(_kept_replies(connection, erased)))
    if erased.person is not None:
        for some in _some(raters_of(connection, tenant, erased.person)):
            said = (ratings.c.tenant == tenant, ratings.c.rater.in_(some), ratings.c.time <= erased.time)
            connection.execute(delete(ratings).where(*said))
        d = deleted_responses.c
        connection.execute(
            update(deleted_responses).where(d.tenant == tenant, d.by == erased.person).values(by=_BLANK)
        )
    for some in _some(letters_of(connection, erased)):
        connection.execute(delete(dead_letters).where(dead_letters.c.digest.in_(some)))


def covered(erased: Erased) -> tuple[ColumnElement[bool], ...]:
    """Which rows of requests an erasure covers."""
    c = requests.c
    if erased.person is None:
        return c.tenant == erased.tenant, c.request_id == erased.request_id
    return c.tenant == erased.tenant, c.caller == erased.person, c.time <= erased.time


def raters_of(connection: Connection, tenant: str, person: str) -> list[str]:
    """The raters of this tenant that are the person."""
    c = ratings.c
    query = select(c.rater).distinct().where(c.tenant == tenant, c.rater.contains(person, autoescape=True))
    return [rater for rater in connection.execute(query).scalars() if person in names_of(rater)]


def _kept_replies(connection: Connection, erased: Erased) -> ColumnElement[bool]:
    c = replies.c
    if erased.person is not None:
        k = api_keys.c
        own = select(func.substr(k.key_hash, 1, _KEY_ID)).where(
            k.tenant == erased.tenant, k.owner == erased.person
        )
        return and_(c.tenant == erased.tenant, c.key_id.in_(own))
    wanted = literal(str(erased.request_id).encode(), LargeBinary)
    at = func.instr(c.body, wanted) if connection.dialect.name == "sqlite" else func.position(wanted.op("IN")(c.body))
    return and_(c.tenant == erased.tenant, at > 0)


def letters_of(connection: Connection, erased: Erased) -> list[str]:
    """The digests of the dead letters that name the person or the request, or a request of the person, as far as
    bytes that are no event can be read.
    """
    found: list[str] = []
    c = dead_letters.c
    after = ""
    while rows := connection.execute(
        select(c.digest, c.data).where(c.digest > after).order_by(c.digest).limit(_AT_ONCE)
    ).all():
        after = rows[-1].digest
        found += [row.digest for row in rows if _names(connection, row.data, erased)]
    return found


def _names(connection: Connection, data: bytes, erased: Erased) -> bool:
    tenant, names, ids = _mentions(data)
    if tenant not in (None, erased.tenant):
        return False
    if erased.request_id is not None:
        return erased.request_id.encode() in data
    person = str(erased.person)
    if person in names or f'"{person}"'.encode() in data:
        return True
    return bool(ids and remembered(connection, erased.tenant, ids))


def _mentions(data: bytes) -> tuple[str | None, set[str], set[str]]:
    """The tenant, the persons and the requests that a record names, if it can be seen."""
    tenant: str | None = None
    names: set[str] = set()
    ids: set[str] = set()
    for key, quoted in _MENTION.findall(data):
        try:
            value = str(from_json(quoted))
        except ValueError:
            continue
        if key == b"tenant":
            tenant = tenant or value
        elif key == b"request_id":
            ids.add(value)
        else:
            names |= names_of(value) if key == b"rater" else {value}
    return tenant, names, ids


def _forget(
    connection: Connection,
    tenant: str,
    gone: Sequence[tuple[str, str | None]],
    time: datetime,
    *,
    spared: Collection[str] = (),
) -> set[str]:
    """Delete these requests (id and episode) with all that was said of them, and remember that they are gone.

    So are their episodes, where no request is left in them, but for those that are `spared`. Returns what is remembered.
    """
    ids = sorted({request_id for request_id, _ in gone})
    episodes = {episode for _, episode in gone if episode is not None} - set(spared)
    for some in _some(ids):
        connection.execute(delete(requests).where(requests.c.tenant == tenant, requests.c.request_id.in_(some)))
        connection.execute(delete(ratings).where(ratings.c.tenant == tenant, ratings.c.request_id.in_(some)))
        for table in (background_responses, deleted_responses):
            its = (table.c.tenant == tenant, table.c.response_id.in_(some))
            connection.execute(delete(table).where(*its))
    r = requests.c
    for some in _some(episodes):
        left = set(
            connection.execute(select(r.episode_id).where(r.tenant == tenant, r.episode_id.in_(some))).scalars()
        )
        episodes -= left
        c = ratings.c
        empty = [episode for episode in some if episode not in left]
        whole = (c.tenant == tenant, c.request_id.is_(None), c.episode_id.in_(empty), c.time <= time)
        connection.execute(delete(ratings).where(*whole))
    insert = upsert(connection, forgotten)
    later = insert.excluded.time > forgotten.c.time
    remember = insert.on_conflict_do_update(
        index_elements=["digest"], set_={"time": insert.excluded.time}, where=later
    )
    targets = {*ids, *episodes}
    connection.execute(remember, [{"digest": digest(tenant, target), "time": time} for target in sorted(targets)])
    return targets
