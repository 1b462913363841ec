"""What there is of a person or a request, and what has been erased: for whoever asks for an erasure, or follows one."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, func, or_, select

from feedback.events import Erased
from feedback.store.erasing import covered, digest, kept_replies, letters_of, raters_of, remembered
from feedback.store.store import Store
from feedback.store.tables import erasures, ratings, replies, requests


class Erasures:
    """The erasures of a store. Every method blocks on the database and raises `StoreError` when it fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def landed(self, erasure_id: str) -> bool:
        """Whether it has been carried out here: it is written in the same transaction."""
        query = select(erasures.c.event_id).where(erasures.c.event_id == erasure_id)
        with self._store.reading() as connection:
            return connection.execute(query).first() is not None

    def find(self, erased: Erased) -> dict[str, int]:
        """How many rows it covers, by what they are."""
        with self._store.reading() as connection:
            count = select(func.count())
            return {
                "requests": connection.execute(
                    count.select_from(requests).where(*covered(erased))
                ).scalar_one(),
                "ratings": connection.execute(
                    count.select_from(ratings).where(_ratings(connection, erased))
                ).scalar_one(),
                "kept answers": connection.execute(
                    count.select_from(replies).where(kept_replies(connection, erased))
                ).scalar_one(),
                "dead letters": len(letters_of(connection, erased)),
            }

    def erased(self, tenant: str, request_ids: Collection[str]) -> set[str]:
        """Those of these requests that an erasure has covered, whenever that was."""
        with self._store.reading() as connection:
            known = remembered(connection, tenant, request_ids)
        return {request_id for request_id in request_ids if digest(tenant, request_id) in known}


def _ratings(connection: Connection, erased: Erased) -> ColumnElement[bool]:
    c = ratings.c
    if erased.person is None:
        return (c.tenant == erased.tenant) & (c.request_id == erased.request_id)
    about = c.request_id.in_(select(requests.c.request_id).where(*covered(erased)))
    by = c.rater.in_(raters_of(connection, erased.tenant, erased.person)) & (c.time <= erased.time)
    return (c.tenant == erased.tenant) & or_(about, by)
