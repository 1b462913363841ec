"""API keys: who may call, for which tenant, what for, until when, and how much. The secret itself is never stored."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, update

from feedback.quota import Quota
from feedback.store.store import Store
from feedback.store.tables import api_keys

_ID_LENGTH = 16  # hexadecimal digits of the hash: 64 bits


@dataclass(frozen=True)
class Key:
    """A key without its secret. `id` names it; `owner` is the identity that its calls are made by.

    `made_by` is the id of the key that made it, None when an operator did at the machine. `quota` holds what has been
    said for this key; anything else is the gateway's default.
    """

    id: str
    owner: str
    tenant: str
    scopes: frozenset[str]
    created: datetime
    revoked: datetime | None
    expires: datetime | None = None
    made_by: str | None = None
    quota: Quota = field(default_factory=Quota)

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now


class Keys:
    """The keys of a store. Every method blocks on the database and raises `StoreError` when it fails.

    Who asks for a tenant names it: a key of another one is then as unknown as one that never was. Without a tenant, a
    method is for the operator at the machine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self,
        owner: str,
        scopes: Iterable[str],
        *,
        tenant: str = "default",
        expires: datetime | None = None,
        made_by: str | None = None,
        quota: Quota | None = None,
    ) -> str:
        """Make a key and return its secret, `fw-…`: the only time that anyone sees it.

        Raises `ValueError` for a scope that is empty or has a space in it, and for an owner with a slash: `app/ann` is
        the name of a rater for whom the owner `app` speaks.
        """
        if "/" in owner:
            raise ValueError(f"an owner has no slash in its name: {owner}")
        secret = f"fw-{secrets.token_urlsafe(32)}"
        row = {
            "key_hash": _hash(secret),
            "owner": owner,
            "tenant": tenant,
            "scopes": _joined(scopes),
            "created": datetime.now(UTC),
            "expires": expires,
            "made_by": made_by,
            "quota": (quota or Quota()).model_dump_json(exclude_none=True),
        }
        with self._store.writing() as connection:
            connection.execute(insert(api_keys).values(row))
        return secret

    def find(self, secret: str) -> Key | None:
        """The key of a secret, revoked and expired ones too; None when there never was one."""
        return self._one(api_keys.c.key_hash == _hash(secret))

    def lookup(self, secret: str) -> Key | None:
        """The key of a secret, if it may be used now."""
        key = self.find(secret)
        return None if key is None or key.revoked or key.expired(datetime.now(UTC)) else key

    def get(self, key_id: str, tenant: str) -> Key | None:
        """A key of this tenant by its id."""
        return self._one(_named(key_id), api_keys.c.tenant == tenant)

    def list(self) -> Sequence[Key]:
        """Every key of every tenant, revoked ones too, oldest first."""
        return self._all()

    def of_tenant(self, tenant: str) -> Sequence[Key]:
        """Every key of this tenant, revoked ones too, oldest first."""
        return self._all(api_keys.c.tenant == tenant)

    def revoke(self, key_id: str, tenant: str | None = None) -> bool:
        """Refuse the key from now on. False when there is no such key (of this tenant), or it was revoked before."""
        return self._change(key_id, tenant, revoked=datetime.now(UTC))

    def limit(self, key_id: str, quota: Quota, tenant: str | None = None) -> bool:
        """Give the key these limits instead of those that it had. False when there is no such living key."""
        return self._change(key_id, tenant, quota=quota.model_dump_json(exclude_none=True))

    def grant(self, secret: str, scopes: Iterable[str]) -> None:
        """Let the key of this secret do exactly this. Raises `ValueError` as `create` does."""
        change = update(api_keys).where(api_keys.c.key_hash == _hash(secret)).values(scopes=_joined(scopes))
        with self._store.writing() as connection:
            connection.execute(change)

    def _one(self, *wanted: ColumnElement[bool]) -> Key | None:
        with self._store.reading() as connection:
            row = connection.execute(select(api_keys).where(*wanted)).one_or_none()
        return None if row is None else _key(row)

    def _all(self, *wanted: ColumnElement[bool]) -> Sequence[Key]:
        query = select(api_keys).where(*wanted).order_by(api_keys.c.created, api_keys.c.key_hash)
        with self._store.reading() as connection:
            return [_key(row) for row in connection.execute(query)]

    def _change(self, key_id: str, tenant: str | None, **values: Any) -> bool:
        change = update(api_keys).where(_named(key_id), api_keys.c.revoked.is_(None)).values(values)
        if tenant is not None:
            change = change.where(api_keys.c.tenant == tenant)
        with self._store.writing() as connection:
            return connection.execute(change).rowcount > 0


def _hash(secret: str) -> str:
    # A plain hash is enough: the secret has 256 random bits, there is no dictionary to try against it.
    return hashlib.sha256(secret.encode()).hexdigest()


def _named(key_id: str) -> ColumnElement[bool]:
    return func.substr(api_keys.c.key_hash, 1, _ID_LENGTH) == key_id


def _joined(scopes: Iterable[str]) -> str:
    words = sorted(set(scopes))
    if any(not scope or scope.split() != [scope] for scope in words):
        raise ValueError(f"a scope is one word: {words}")
    return " ".join(words)


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.key_hash[:_ID_LENGTH],
        owner=row.owner,
        tenant=row.tenant,
        scopes=frozenset(row.scopes.split()),
        created=row.created,
        revoked=row.revoked,
        expires=row.expires,
        made_by=row.made_by,
        quota=Quota.model_validate_json(row.quota),
    )
