"""The dead letters, for those who look after them: found by id, and taken away once they have become events."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, func, select

from feedback.store.store import Store
from feedback.store.tables import dead_letters

_PAGE = 500


class Letter(NamedTuple):
    """A dead letter without its data. `id` is the SHA-256 of that, `size` its length in bytes."""

    id: str
    time: datetime
    size: int
    reason: str


class DeadLetters:
    """The dead letters of a store. Every method blocks on the database and raises `StoreError` when it fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> Iterator[Letter]:
        """All, in the order of their ids; reads some at a time, and none is left out when others are removed."""
        yield from self._found("")

    def find(self, prefix: str) -> list[Letter]:
        """Those whose id begins so."""
        return list(self._found(prefix))

    def data(self, letter: Letter) -> bytes:
        """What was delivered; nothing when it has been removed since."""
        query = select(dead_letters.c.data).where(dead_letters.c.digest == letter.id)
        with self._store.reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return b"" if found is None else bytes(found)

    def remove(self, letter: Letter) -> None:
        """Forget it."""
        with self._store.writing() as connection:
            connection.execute(delete(dead_letters).where(dead_letters.c.digest == letter.id))

    def _found(self, prefix: str) -> Iterator[Letter]:
        c = dead_letters.c
        query = select(c.digest, c.time, func.length(c.data), c.reason).order_by(c.digest).limit(_PAGE)
        last = ""
        while True:
            wanted = query.where(c.digest > last, c.digest.startswith(prefix, autoescape=True))
            with self._store.reading() as connection:
                page = connection.execute(wanted).all()
            for row in page:
                yield Letter(*row)
            if len(page) < _PAGE:
                return
            last = page[-1].digest
