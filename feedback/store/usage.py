"""What has been spent of budgets: one row for each subject and period, so that a restart forgets nothing."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import tuple_

from feedback.store.engine import upsert
from feedback.store.store import Store
from feedback.store.tables import usage


class Slot(NamedTuple):
    """Whose budget, e.g. `key:3f2a90c1d4e5b678` or `tenant:acme`, and of when: `2030-01-31` or `2030-01`, in UTC."""

    subject: str
    period: str


class Spent(NamedTuple):
    """Tokens, and millionths of the currency."""

    tokens: int = 0
    money: int = 0


class Usage:
    """The spendings of a store. Every method blocks on the database and raises `StoreError` when it fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, more: Mapping[Slot, Spent]) -> dict[Slot, Spent]:
        """Add to what has been spent, and return what that makes, whoever else has added to it."""
        rows = [
            {"subject": slot.subject, "period": slot.period, "tokens": spent.tokens, "money": spent.money}
            for slot, spent in sorted(
                more.items()
            )  # so that two who add to the same do not wait for each other
            if any(spent)
        ]
        c = usage.c
        query = usage.select().where(tuple_(c.subject, c.period).in_([tuple(slot) for slot in more]))
        with self._store.writing() if rows else self._store.reading() as connection:
            if rows:
                insert = upsert(connection, usage)
                added = {name: usage.c[name] + insert.excluded[name] for name in ("tokens", "money")}
                connection.execute(
                    insert.on_conflict_do_update(index_elements=[c.subject, c.period], set_=added), rows
                )
            known = {
                Slot(row.subject, row.period): Spent(row.tokens, row.money)
                for row in connection.execute(query)
            }
        return {slot: known.get(slot, Spent()) for slot in more}
