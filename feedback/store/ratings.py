"""What people think now, looked up: page by page, by id, and by whether it still stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Tuple, exists, func, literal, or_, select, tuple_

from feedback.events import Rating
from feedback.store.store import Store, of_agent
from feedback.store.tables import ratings


@dataclass(frozen=True)
class Filter:
    """Which ratings. None: no restriction. `since` is included, `until` is not.

    `owner` restricts to what a key of this owner has said: for itself, or for one of those whom it rates for.
    `withdrawn`: not what stands, but what its rater has taken back.
    """

    request_id: str | None = None
    episode_id: str | None = None
    agent: str | None = None
    name: str | None = None
    rater: str | None = None
    owner: str | None = None
    source: str | None = None
    client_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    withdrawn: bool = False


class Page(NamedTuple):
    """Some of a list; `has_more` says whether there are further ones."""

    ratings: Sequence[Rating]
    has_more: bool


class Ratings:
    """The ratings of a store. Every method blocks on the database and raises `StoreError` when it fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, feedback_id: str, tenant: str) -> Rating | None:
        """What was said under this id, superseded or not."""
        c = ratings.c
        query = select(c.payload).where(c.event_id == feedback_id, c.tenant == tenant)
        with self._store.reading() as connection:
            payload = connection.execute(query).scalar_one_or_none()
        return None if payload is None else Rating.model_validate_json(payload)

    def page(
        self,
        wanted: Filter,
        *,
        tenant: str,
        limit: int,
        after: Rating | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Page:
        """The last word of each rater on each target and metric, by time, from behind `after` on."""
        c = ratings.c
        query = select(c.payload).where(c.tenant == tenant, *_matches(wanted), ~_superseded())
        place = tuple_(c.time, c.event_id)
        if after is not None:
            last = _place(after)
            query = query.where(place > last if order == "asc" else place < last)
        keys = (c.time, c.event_id) if order == "asc" else (c.time.desc(), c.event_id.desc())
        with self._store.reading() as connection:
            found = connection.execute(query.order_by(*keys).limit(limit + 1)).scalars().all()
        return Page([Rating.model_validate_json(payload) for payload in found[:limit]], len(found) > limit)

    def stands(self, rating: Rating) -> bool:
        """Whether its rater has said nothing later on the same target and metric. True before it has landed."""
        c = ratings.c
        same = [c.tenant == rating.tenant, c.rater == rating.rater, c.name == rating.name]
        if rating.request_id is None:
            same += [c.request_id.is_(None), c.episode_id == rating.episode_id]
        else:
            same += [c.request_id == rating.request_id, c.call.is_not_distinct_from(rating.call)]
        later = tuple_(c.time, c.event_id) > _place(rating)
        with self._store.reading() as connection:
            return connection.execute(select(c.event_id).where(*same, later).limit(1)).first() is None


def _place(rating: Rating) -> Tuple:
    return tuple_(literal(rating.time, ratings.c.time.type), rating.event_id)


def _matches(wanted: Filter) -> list[ColumnElement[bool]]:
    c = ratings.c
    names = ("request_id", "episode_id", "name", "rater", "source", "client_id")
    found = [c[name] == getattr(wanted, name) for name in names if getattr(wanted, name) is not None]
    found.append(c.withdrawn.is_(wanted.withdrawn))
    if wanted.agent is not None:
        found.append(of_agent(wanted.agent))
    if wanted.owner is not None:
        # Not LIKE, which SQLite compares without regard to case.
        prefix = f"{wanted.owner}/"
        found.append(or_(c.rater == wanted.owner, func.substr(c.rater, 1, len(prefix)) == prefix))
    if wanted.since is not None:
        found.append(c.time >= wanted.since)
    if wanted.until is not None:
        found.append(c.time < wanted.until)
    return found


def _superseded() -> ColumnElement[bool]:
    """Whether the same rater said something later. Two look-ups, so that each finds its index."""
    c, later = ratings.c, ratings.alias("later")
    same = (
        later.c.tenant == c.tenant,
        later.c.rater == c.rater,
        later.c.name == c.name,
        tuple_(later.c.time, later.c.event_id) > tuple_(c.time, c.event_id),
    )
    of_request = (later.c.request_id == c.request_id, later.c.call.is_not_distinct_from(c.call))
    of_episode = (
        c.request_id.is_(None),
        later.c.request_id.is_(None),
        later.c.episode_id == c.episode_id,
    )
    return or_(exists().where(*same, *of_request), exists().where(*same, *of_episode))
