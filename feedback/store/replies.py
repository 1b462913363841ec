"""Answers that are kept for a while, so that the same request, sent again, is not answered by new work."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Row, delete, select, tuple_, update

from feedback.store.engine import upsert
from feedback.store.store import Store
from feedback.store.tables import replies

_KEY = tuple(replies.primary_key.columns)


class Slip(NamedTuple):
    """A request by the name that its caller gave it (`Idempotency-Key`): only that caller can ask for it."""

    tenant: str
    key_id: str
    name: str


class Claim(NamedTuple):
    """The right to answer, until it is released or runs out."""

    slip: Slip
    holder: str


@dataclass(frozen=True)
class Reply:
    """An answer as it was given. `body` is None when it was too large to be kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Replies:
    """The replies of a store. Every method blocks on the database and raises `StoreError` when it fails.

    A claim holds for `hold`, for its process may die; a reply is kept for `keep`.
    """

    def __init__(self, store: Store, *, keep: timedelta, hold: timedelta) -> None:
        self._store = store
        self._keep = keep
        self._hold = hold

    def claim(self, slip: Slip, digest: str) -> Claim | Reply | Literal["another request", "in progress"]:
        """The right to answer, or the answer that there is, or why there is neither. What is too old is deleted."""
        c, now = replies.c, datetime.now(UTC)
        claim = Claim(slip, secrets.token_hex(8))
        fresh = {
            "digest": digest,
            "holder": claim.holder,
            "held_until": now + self._hold,
            "expires": now + self._keep,
        }
        with self._store.writing() as connection:
            old = select(*_KEY).where(c.expires <= now).with_for_update(skip_locked=True)
            connection.execute(delete(replies).where(tuple_(*_KEY).in_(old)))
            insert = upsert(connection, replies).values(**slip._asdict(), **fresh).on_conflict_do_nothing()
            row = None
            while row is None:  # it may be released between the two
                if connection.execute(insert.returning(c.holder)).first() is not None:
                    return claim
                row = connection.execute(select(replies).where(*_is(slip)).with_for_update()).one_or_none()
            if row.digest != digest:
                return "another request"
            if row.status is not None:
                return _reply(row)
            if row.held_until > now:
                return "in progress"
            connection.execute(update(replies).where(*_is(slip)).values(fresh))
            return claim

    def renew(self, claim: Claim) -> bool:
        """Hold it for longer. False when it is another's by now."""
        return self._change(claim, held_until=datetime.now(UTC) + self._hold)

    def finish(self, claim: Claim, reply: Reply) -> bool:
        """Keep the answer. False when the claim is another's by now."""
        headers = json.dumps(dict(reply.headers))
        return self._change(claim, status=reply.status, headers=headers, body=reply.body)

    def release(self, claim: Claim) -> None:
        """There will be no answer: whoever asks next may give one."""
        with self._store.writing() as connection:
            connection.execute(delete(replies).where(*_open(claim)))

    def _change(self, claim: Claim, **values: object) -> bool:
        with self._store.writing() as connection:
            return connection.execute(update(replies).where(*_open(claim)).values(values)).rowcount > 0


def _is(slip: Slip) -> tuple[ColumnElement[bool], ...]:
    c = replies.c
    return c.tenant == slip.tenant, c.key_id == slip.key_id, c.name == slip.name


def _open(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return *_is(claim.slip), replies.c.holder == claim.holder, replies.c.status.is_(None)


def _reply(row: Row[tuple[object, ...]]) -> Reply:
    return Reply(row.status, json.loads(row.headers), row.body)
