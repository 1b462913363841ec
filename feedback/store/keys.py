"""API keys: who may call, for which tenant, and what for. The secret itself is never stored."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from feedback.store.store import Store
from feedback.store.tables import api_keys

_ID_LENGTH = 16  # hexadecimal digits of the hash: 64 bits


@dataclass(frozen=True)
class Key:
    """A key without its secret. `id` names it to `revoke`; `owner` is the identity that its calls are made by."""

    id: str
    owner: str
    tenant: str
    scopes: frozenset[str]
    created: datetime
    revoked: datetime | None


class Keys:
    """The keys of a store. Every method blocks on the database and raises `StoreError` when it fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, owner: str, scopes: Iterable[str], *, tenant: str = "default") -> str:
        """Make a key and return its secret, `fw-…`: the only time that anyone sees it.

        Raises `ValueError` for a scope that is empty or has a space in it.
        """
        scopes = sorted(set(scopes))
        if any(not scope or scope.split() != [scope] for scope in scopes):
            raise ValueError(f"a scope is one word: {scopes}")
        secret = f"fw-{secrets.token_urlsafe(32)}"
        row = {
            "key_hash": _hash(secret),
            "owner": owner,
            "tenant": tenant,
            "scopes": " ".join(scopes),
            "created": datetime.now(UTC),
        }
        with self._store.writing() as connection:
            connection.execute(insert(api_keys).values(row))
        return secret

    def lookup(self, secret: str) -> Key | None:
        """The key of a secret; None when it is unknown or revoked."""
        query = select(api_keys).where(api_keys.c.key_hash == _hash(secret), api_keys.c.revoked.is_(None))
        with self._store.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _key(row)

    def list(self) -> Sequence[Key]:
        """Every key of every tenant, revoked ones too, oldest first."""
        with self._store.reading() as connection:
            return [_key(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.created))]

    def revoke(self, key_id: str) -> bool:
        """Refuse the key from now on. False when there is no such key, or it has been revoked before."""
        matching = func.substr(api_keys.c.key_hash, 1, _ID_LENGTH) == key_id
        change = (
            update(api_keys).where(matching, api_keys.c.revoked.is_(None)).values(revoked=datetime.now(UTC))
        )
        with self._store.writing() as connection:
            return connection.execute(change).rowcount > 0


def _hash(secret: str) -> str:
    # A plain hash is enough: the secret has 256 random bits, there is no dictionary to try against it.
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Row[Any]) -> Key:
    scopes = frozenset(row.scopes.split())
    return Key(row.key_hash[:_ID_LENGTH], row.owner, row.tenant, scopes, row.created, row.revoked)
