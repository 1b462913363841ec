"""Which responses people have deleted: they cannot be looked up any more.

The record of the request stays, as evidence for training and as the truth about what happened. Whoever wants that gone
too asks for erasure, which is another thing.
"""

from datetime import UTC, datetime

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from feedback.store.store import Store, StoreError
from feedback.store.tables import deleted_responses


class Deletions:
    """The deleted responses of a store. Every method blocks on the database and raises `StoreError` when it fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, response_id: str, *, tenant: str, by: str) -> bool:
        """Delete a response, whether its request has landed or not. False when it was deleted before."""
        row = {"tenant": tenant, "response_id": response_id, "time": datetime.now(UTC), "by": by}
        try:
            with self._store.writing() as connection:
                connection.execute(insert(deleted_responses).values(row))
        except StoreError as error:
            if isinstance(error.__cause__, IntegrityError):
                return False
            raise
        return True

    def has(self, response_id: str, tenant: str) -> bool:
        """Whether the response was deleted."""
        c = deleted_responses.c
        query = select(c.response_id).where(c.tenant == tenant, c.response_id == response_id)
        with self._store.reading() as connection:
            return connection.execute(query).first() is not None
