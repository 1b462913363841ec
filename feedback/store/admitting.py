"""What may be written: not what an erasure covers, in whatever order the two come."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from feedback.events import AnyEvent, Erased, Rating, RequestFinished
from feedback.store.erasing import digest, erase, forget, mentions, names_of, remembered, some_of
from feedback.store.tables import erasures

_LOCK = 0x65726173  # on PostgreSQL: whoever writes events shares it, an erasure has it alone
_NEVER = datetime.min.replace(tzinfo=UTC)


class _Subject(NamedTuple):
    """Whose something is, and which requests or episodes it is about."""

    tenant: str
    persons: set[str]
    targets: set[str]


class _Known:
    """Of one tenant: until when each person is erased, the requests that are, and the digests that are remembered."""

    def __init__(self, tenant: str) -> None:
        self.persons: dict[str, datetime] = {}
        self.requests: set[str] = set()
        self.digests: dict[str, datetime] = {}
        self._tenant = tenant

    def person(self, name: str, until: datetime) -> None:
        """One erasure more, of a person."""
        self.persons[name] = max(until, self.persons.get(name, until))

    def covers(self, event: AnyEvent) -> bool:
        """Whether the event must not be kept."""
        if isinstance(event, RequestFinished):
            return self._gone(event.request_id) or self._said({event.caller}, event.time)
        if isinstance(event, Rating):
            if self._said(names_of(event.rater), event.time):
                return True
            if event.request_id is not None:
                return self._gone(event.request_id)
            episode = digest(self._tenant, str(event.episode_id))
            return event.time <= self.digests.get(episode, _NEVER)
        return False

    def mentioned(self, subject: _Subject) -> bool:
        """Whether a dead letter about this must not be kept: when it was written, nobody knows."""
        return not self.persons.keys().isdisjoint(subject.persons) or any(map(self._gone, subject.targets))

    def _gone(self, request_id: str) -> bool:
        # An id is never used again: what comes with it later, or ends later, is the same request.
        return request_id in self.requests or digest(self._tenant, request_id) in self.digests

    def _said(self, names: Collection[str], time: datetime) -> bool:
        return any(time <= self.persons.get(name, _NEVER) for name in names)


def admit(
    connection: Connection, events: Sequence[AnyEvent], letters: Sequence[bytes]
) -> tuple[Sequence[AnyEvent], set[bytes]]:
    """Carry out the erasures among the events. Returns the events that may be written, and the letters that may not.

    Where nothing has ever been erased this is one look-up.
    """
    given = [event for event in events if isinstance(event, Erased)]
    if connection.dialect.name == "postgresql":  # else a request that is just being written would escape
        lock = func.pg_advisory_xact_lock if given else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(_LOCK)))
    if not given and connection.execute(select(erasures.c.event_id).limit(1)).first() is None:
        return events, set()
    for erased in _new(connection, given):
        erase(connection, erased)
    named = [(letter, _of_letter(letter)) for letter in letters]
    subjects = [*map(_subject, events), *(subject for _, subject in named)]
    known = _known(connection, subjects, given)
    kept = [event for event in events if not known[event.tenant].covers(event)]
    late = [
        event for event in events if isinstance(event, RequestFinished) and known[event.tenant].covers(event)
    ]
    unwanted = {letter for letter, subject in named if known[subject.tenant].mentioned(subject)}
    return _without(connection, kept, late, known), unwanted


def _without(
    connection: Connection, kept: list[AnyEvent], late: Sequence[RequestFinished], known: dict[str, _Known]
) -> list[AnyEvent]:
    """Of `kept`, what is not about a request that came too late to be kept. What is in the store about it goes."""
    now = datetime.now(UTC)
    for tenant in sorted({event.tenant for event in late}):
        of_tenant = [event for event in late if event.tenant == tenant]
        until = max(known[tenant].persons.get(event.caller, now) for event in of_tenant)
        others = {e.episode_id for e in kept if isinstance(e, RequestFinished) and e.tenant == tenant}
        gone = [(event.request_id, event.episode_id) for event in of_tenant]
        targets = forget(connection, tenant, gone, until, spared=others)
        kept = [
            event
            for event in kept
            if not (isinstance(event, Rating) and event.tenant == tenant and _target(event) in targets)
        ]
    return kept


def _new(connection: Connection, given: Sequence[Erased]) -> Iterator[Erased]:
    """Those that have not been carried out before: a replay brings all of them again."""
    ids = [erased.event_id for erased in given]
    done = set(connection.execute(select(erasures.c.event_id).where(erasures.c.event_id.in_(ids))).scalars())
    return (erased for erased in given if erased.event_id not in done)


def _known(
    connection: Connection, subjects: Sequence[_Subject], given: Sequence[Erased]
) -> dict[str, _Known]:
    """All that the store and this batch know of erasures that could cover the subjects: a few look-ups by index."""
    tenants = {subject.tenant for subject in subjects} | {erased.tenant for erased in given}
    known = {tenant: _Known(tenant) for tenant in tenants}
    e = erasures.c
    for tenant, found in known.items():
        of_tenant = [subject for subject in subjects if subject.tenant == tenant]
        targets = set().union(*(subject.targets for subject in of_tenant))
        for some in some_of(set().union(*(subject.persons for subject in of_tenant))):
            for name, until in connection.execute(
                select(e.person, e.time).where(e.tenant == tenant, e.person.in_(some))
            ):
                found.person(name, until)
        for some in some_of(targets):
            asked = select(e.request_id).where(e.tenant == tenant, e.request_id.in_(some))
            found.requests.update(connection.execute(asked).scalars())
        found.digests.update(remembered(connection, tenant, targets))
    for erased in given:
        if erased.person is not None:
            known[erased.tenant].person(erased.person, erased.time)
        elif erased.request_id is not None:
            known[erased.tenant].requests.add(erased.request_id)
    return known


def _subject(event: AnyEvent) -> _Subject:
    if isinstance(event, RequestFinished):
        return _Subject(event.tenant, {event.caller}, {event.request_id})
    if isinstance(event, Rating):
        return _Subject(event.tenant, names_of(event.rater), {_target(event)})
    return _Subject(event.tenant, set(), set())


def _of_letter(letter: bytes) -> _Subject:
    tenant, persons, targets = mentions(letter)
    return _Subject(tenant or "", persons, targets)


def _target(rating: Rating) -> str:
    return rating.request_id or str(rating.episode_id)
