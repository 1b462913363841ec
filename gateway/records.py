"""Where a record is that was made a moment ago: in the store, or in an outbox on its way there."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from feedback import outboxes
from feedback.delivery import Delivery
from feedback.events import AnyEvent, Rating, RequestFinished, parse
from feedback.store import Filter, Ratings, Store

E = TypeVar("E", RequestFinished, Rating)
_OF_ONE_ID = 100  # ratings that are looked at


class Records:
    """Looks requests and ratings up. `siblings` are the outboxes of the other workers, which took some of them.

    Every method blocks and raises `StoreError`, `OutboxError`.
    """

    def __init__(self, store: Store, delivery: Delivery, siblings: Sequence[Path] = ()) -> None:
        self._store = store
        self._ratings = Ratings(store)
        self._delivery = delivery
        self._siblings = siblings

    def find(self, request_id: str, tenant: str) -> RequestFinished | None:
        """The request, if it is this tenant's."""
        return _found(
            lambda: self._store.request(request_id, tenant),
            lambda: self._waiting(RequestFinished, "request_id", request_id, tenant),
        )

    def newest(
        self, group: Literal["episode_id", "trace_id"], name: str, tenant: str
    ) -> RequestFinished | None:
        """The newest request of this tenant in an episode, or in a trace; of what others told only where it is all."""
        waiting = self._waiting(
            RequestFinished, group, name, tenant
        )  # first: what has moved on meanwhile has landed
        return _newest(waiting, self._store.newest(tenant, **{group: name}))

    def of_span(self, span_id: str, tenant: str) -> RequestFinished | None:
        """The request of this tenant with this span, when it has landed."""
        return self._store.newest(tenant, span_id=span_id)

    def rating(self, feedback_id: str, tenant: str) -> Rating | None:
        """What was said under this id, superseded or not, if it is this tenant's."""
        return _found(
            lambda: self._ratings.get(feedback_id, tenant),
            lambda: self._waiting(Rating, "event_id", feedback_id, tenant),
        )

    def ratings_of_client(self, client_id: str, owner: str, tenant: str) -> Sequence[Rating]:
        """What a key's owner has said under an id of its own choice, as far as it stands and has landed."""
        wanted = Filter(client_id=client_id, owner=owner)
        return self._ratings.page(wanted, tenant=tenant, limit=_OF_ONE_ID).ratings

    def stands(self, rating: Rating) -> bool:
        """Whether its rater has said nothing later on the same target and metric. True before it has landed."""
        field = "episode_id" if rating.request_id is None else "request_id"
        waiting = self._mentioning(field, str(getattr(rating, field)))
        if any(isinstance(event, Rating) and _supersedes(event, rating) for event in waiting):
            return False
        return self._ratings.stands(rating)  # second: what has moved on meanwhile has landed

    def last_word(self, rating: Rating) -> Rating | None:
        """What its rater has said last on the same target and metric, unless it was taken back."""
        field = "episode_id" if rating.request_id is None else "request_id"
        waiting = list(self._mentioning(field, str(getattr(rating, field))))  # first: as in `newest`
        wanted = Filter(
            rater=rating.rater,
            name=rating.name,
            request_id=rating.request_id,
            episode_id=rating.episode_id if rating.request_id is None else None,
        )
        landed = self._ratings.page(wanted, tenant=rating.tenant, limit=_OF_ONE_ID).ratings
        said = [one for one in (*waiting, *landed) if isinstance(one, Rating) and rating.on_the_same(one)]
        return max(said, key=lambda one: (one.time, one.event_id), default=None)

    def _waiting(self, kind: type[E], field: str, value: str, tenant: str) -> E | None:
        """The newest such event that is on its way."""
        found: E | None = None
        for event in self._mentioning(field, value):
            if isinstance(event, kind) and (getattr(event, field), event.tenant) == (value, tenant):
                found = _newest(found, event)
        return found

    def _mentioning(self, field: str, value: str) -> Iterator[AnyEvent]:
        text = f'"{field}":{json.dumps(value, ensure_ascii=False)}'.encode()
        for body in self._bodies(text):
            try:
                yield parse(body)
            except ValidationError:  # a later version's, perhaps; it is the collector's to judge
                continue

    def _bodies(self, text: bytes) -> Iterator[bytes]:
        yield from self._delivery.containing(text)
        for path in self._siblings:
            yield from outboxes.containing(path, text)


def _newest(one: E | None, other: E | None) -> E | None:
    """What others told by OpenTelemetry only where it is all that there is."""
    there = [event for event in (one, other) if event is not None]
    return max(there, key=lambda event: (not _told(event), event.time, event.event_id), default=None)


def _supersedes(later: Rating, rating: Rating) -> bool:
    return rating.on_the_same(later) and (later.time, later.event_id) > (rating.time, rating.event_id)


def _told(event: AnyEvent) -> bool:
    return isinstance(event, RequestFinished) and event.origin == "otlp"


def _found(landed: Callable[[], E | None], waiting: Callable[[], E | None]) -> E | None:
    # The store twice: between the first look and the one into the outboxes, the record may have moved on.
    return landed() or waiting() or landed()
