"""Erasures, as the store carries them out: what is there goes, and a trace stays that says nothing.

Of each request that was covered, and of each episode that it emptied, a hash is kept: what others say of it may still
be under way, and data sets that were made of it are found by it. Things are found by whose they are: a person's words
in another person's conversation are not.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, and_, delete, func, literal, or_, select, update
from sqlalchemy.types import LargeBinary

from feedback.events import Erased
from feedback.store.engine import upsert
from feedback.store.tables import (
    api_keys,
    background_responses,
    dead_letters,
    deleted_responses,
    forgotten,
    ratings,
    replies,
    requests,
)

_AT_ONCE = 500  # ids in one statement: databases have a limit
_KEY_ID = 16  # see `feedback.store.keys`
_BLANK = "[erased]"
_MENTION = re.compile(rb'"(tenant|caller|rater|request_id)"\s*:\s*("(?:[^"\\]|\\.){1,800}")')


def names_of(rater: str) -> set[str]:
    """By which persons a rater is meant: `crm/ann` is the key's owner `crm`, their `ann`, and itself."""
    owners = {rater[:at] for at, character in enumerate(rater) if character == "/"}
    return ({rater, rater.partition("/")[2]} | owners) - {""}


def digest(tenant: str, target: str) -> str:
    """What is remembered of a request or an episode that was erased."""
    return hashlib.sha256(f"{tenant}\0{target}".encode()).hexdigest()


def remembered(connection: Connection, tenant: str, targets: Collection[str]) -> dict[str, datetime]:
    """Of these requests and episodes, the digests of those that were erased, each with the erasure's time."""
    found: dict[str, datetime] = {}
    for some in some_of({digest(tenant, target) for target in targets}):
        query = select(forgotten.c.digest, forgotten.c.time).where(forgotten.c.digest.in_(some))
        found |= {row.digest: row.time for row in connection.execute(query)}
    return found


def some_of(values: Collection[str]) -> Iterator[list[str]]:
    """As many at a time as a statement may name."""
    ordered = sorted(values)
    return (ordered[start : start + _AT_ONCE] for start in range(0, len(ordered), _AT_ONCE))


def erase(connection: Connection, erased: Erased) -> None:
    """Delete all that is there of it."""
    tenant = erased.tenant
    r = requests.c
    query = select(r.request_id, r.episode_id).where(*covered(erased)).limit(_AT_ONCE)
    while rows := [tuple(row) for row in connection.execute(query)]:
        forget(connection, tenant, rows, erased.time)
    if erased.request_id is not None:
        forget(connection, tenant, [(erased.request_id, None)], erased.time)
    connection.execute(delete(replies).where(kept_replies(connection, erased)))
    if erased.person is not None:
        for some in some_of(raters_of(connection, tenant, erased.person)):
            said = (ratings.c.tenant == tenant, ratings.c.rater.in_(some), ratings.c.time <= erased.time)
            connection.execute(delete(ratings).where(*said))
        d = deleted_responses.c
        connection.execute(
            update(deleted_responses).where(d.tenant == tenant, d.by == erased.person).values(by=_BLANK)
        )
    for some in some_of(letters_of(connection, erased)):
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


def kept_replies(connection: Connection, erased: Erased) -> ColumnElement[bool]:
    """Which answers that are kept for an Idempotency-Key are the person's, or tell of the request."""
    c = replies.c
    if erased.person is not None:
        k = api_keys.c
        own = select(func.substr(k.key_hash, 1, _KEY_ID)).where(
            k.tenant == erased.tenant, k.owner == erased.person
        )
        return and_(c.tenant == erased.tenant, c.key_id.in_(own))
    wanted = literal(str(erased.request_id).encode(), LargeBinary)
    at = (
        func.instr(c.body, wanted)
        if connection.dialect.name == "sqlite"
        else func.position(wanted.op("IN")(c.body))
    )
    # An embedding's body need not say of which request it is; the headers that are kept with it do.
    named = c.headers.contains(str(erased.request_id), autoescape=True)
    return and_(c.tenant == erased.tenant, or_(at > 0, named))


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
    tenant, names, ids = mentions(data)
    if tenant not in (None, erased.tenant):
        return False
    if erased.request_id is not None:
        return erased.request_id.encode() in data
    person = str(erased.person)
    if person in names or f'"{person}"'.encode() in data:
        return True
    return bool(ids and remembered(connection, erased.tenant, ids))


def mentions(data: bytes) -> tuple[str | None, set[str], set[str]]:
    """The tenant, the persons and the requests that a record names, if it can be seen."""
    tenant: str | None = None
    names: set[str] = set()
    ids: set[str] = set()
    for key, quoted in _MENTION.findall(data):
        try:
            value = str(from_json(quoted))
        except ValueError:
            continue
        if "\0" in value:  # no name or id has one, and PostgreSQL takes no text with one
            continue
        if key == b"tenant":
            tenant = tenant or value
        elif key == b"request_id":
            ids.add(value)
        else:
            names |= names_of(value) if key == b"rater" else {value}
    return tenant, names, ids


def forget(
    connection: Connection,
    tenant: str,
    gone: Sequence[tuple[str, str | None]],
    time: datetime,
    *,
    spared: Collection[str] = (),
) -> set[str]:
    """Delete these requests (id and episode) with all that was said of them, and remember that they are gone.

    So are their episodes, where no request is left in them, unless they are `spared`. Returns what is remembered.
    """
    ids = sorted({request_id for request_id, _ in gone})
    episodes = {episode for _, episode in gone if episode is not None} - set(spared)
    for some in some_of(ids):
        connection.execute(
            delete(requests).where(requests.c.tenant == tenant, requests.c.request_id.in_(some))
        )
        connection.execute(delete(ratings).where(ratings.c.tenant == tenant, ratings.c.request_id.in_(some)))
        for table in (background_responses, deleted_responses):
            its = (table.c.tenant == tenant, table.c.response_id.in_(some))
            connection.execute(delete(table).where(*its))
    r = requests.c
    for some in some_of(episodes):
        left = set(
            connection.execute(
                select(r.episode_id).where(r.tenant == tenant, r.episode_id.in_(some))
            ).scalars()
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
    connection.execute(
        remember, [{"digest": digest(tenant, target), "time": time} for target in sorted(targets)]
    )
    return targets
