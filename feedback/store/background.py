"""Responses that are made in the background: what can be told of each, by everybody, until its record has landed."""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, exists, insert, or_, select, update

from feedback.store.store import Store
from feedback.store.tables import background_responses, requests

_AT_ONCE = 1_000  # ids in one statement: databases have a limit


class Unfinished(NamedTuple):
    """A response as its client was first told of it. `lost`: whoever made it holds it no more, for it has died."""

    response: dict[str, Any]
    lost: bool


class BackgroundResponses:
    """The unfinished responses of a store. Every method blocks on the database and raises `StoreError` when it fails.

    Who makes a response holds it for `hold` at a time; to about that the clocks of all who share the store must agree.
    A row goes when its request has landed, or `keep` after it was held last.
    """

    def __init__(self, store: Store, *, hold: timedelta, keep: timedelta) -> None:
        self._store = store
        self._hold = hold
        self._keep = keep

    def add(self, response_id: str, tenant: str, response: dict[str, Any]) -> None:
        """It is being made, and held."""
        now = datetime.now(UTC)
        row = {
            "response_id": response_id,
            "tenant": tenant,
            "response": json.dumps(response),
            "held_until": now + self._hold,
            "cancel": False,
        }
        with self._store.writing() as connection:
            self._sweep(connection, now)
            connection.execute(insert(background_responses).values(row))

    def find(self, response_id: str, tenant: str) -> Unfinished | None:
        """The response, if it is this tenant's. None says nothing of whether its request has landed: look again."""
        query = select(background_responses).where(*_is(response_id, tenant))
        with self._store.reading() as connection:
            row = connection.execute(query).one_or_none()
        return (
            None if row is None else Unfinished(json.loads(row.response), row.held_until <= datetime.now(UTC))
        )

    def cancel(self, response_id: str, tenant: str) -> None:
        """Whoever makes it is to stop, and hears of it by `renew`."""
        change = update(background_responses).where(*_is(response_id, tenant)).values(cancel=True)
        with self._store.writing() as connection:
            connection.execute(change)

    def renew(self, response_ids: Collection[str]) -> dict[str, bool]:
        """Hold these for longer. Those that have not landed yet, each with whether it is to be cancelled."""
        c, now = background_responses.c, datetime.now(UTC)
        left: dict[str, bool] = {}
        with self._store.writing() as connection:
            self._sweep(connection, now)
            ids = sorted(response_ids)
            for start in range(0, len(ids), _AT_ONCE):
                held = c.response_id.in_(ids[start : start + _AT_ONCE])
                connection.execute(
                    update(background_responses).where(held).values(held_until=now + self._hold)
                )
                rows = connection.execute(select(c.response_id, c.cancel).where(held))
                left |= {row.response_id: row.cancel for row in rows}
        return left

    def _sweep(self, connection: Connection, now: datetime) -> None:
        c, r = background_responses.c, requests.c
        landed = exists().where(r.tenant == c.tenant, r.request_id == c.response_id)
        over = select(c.response_id).where(or_(landed, c.held_until <= now - self._keep))
        gone = c.response_id.in_(over.with_for_update(skip_locked=True))  # two that sweep at once do not wait
        connection.execute(delete(background_responses).where(gone))


def _is(response_id: str, tenant: str) -> tuple[ColumnElement[bool], ...]:
    c = background_responses.c
    return c.response_id == response_id, c.tenant == tenant
