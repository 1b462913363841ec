"""Who is calling: `Authorization: Bearer fw-…` → a key with its owner, tenant and scopes."""

import asyncio
import base64
import hashlib
import time
from datetime import UTC, datetime

from starlette.requests import Request

from feedback.store import Key, Keys, StoreError
from gateway.errors import ApiError
from gateway.scopes import Scope

_CACHE_SECONDS = 2.0  # for so long a revoked key may still work
_CACHE_KEYS = 10_000


class Auth:
    """Looks keys up, and remembers them for two seconds. Operators are keys of `operator_tenant` only.

    While the store does not answer, a key that was known before goes on working: whoever is served is served without
    the store, and that is also where a key would be revoked.
    """

    def __init__(self, keys: Keys, *, operator_tenant: str = "default") -> None:
        self._keys = keys
        self._operator_tenant = operator_tenant
        self._cache: dict[bytes, tuple[Key, float]] = {}

    async def require(self, request: Request, *scopes: Scope) -> Key:
        """The caller's key, which has one of the scopes. Raises `ApiError` (401, 403) as `admit` does."""
        return await self.admit(request.headers.get("authorization", "").encode("latin-1"), *scopes)

    async def require_of_any(self, request: Request, *scopes: Scope) -> Key:
        """As `require`, of clients too that send the key as the password of HTTP Basic (RFC 7617), of any user."""
        authorization = request.headers.get("authorization", "").encode("latin-1")
        return await self.admit(_as_bearer(authorization), *scopes)

    async def admit(self, authorization: bytes, *scopes: Scope) -> Key:
        """The key in an `Authorization` header, which has one of the scopes.

        Raises `ApiError`: 401 when it is missing, unknown, expired or revoked, 403 without a scope; `StoreError`.
        """
        kind, _, secret = authorization.partition(b" ")
        key = await self._find(secret.strip()) if kind.lower() == b"bearer" else None
        if key is None:
            message = (
                "Missing or wrong API key. Send `Authorization: Bearer fw-…`; an administrator makes keys."
            )
            raise ApiError(401, message, code="invalid_api_key")
        # Only who holds the secret hears what became of the key: to everyone else it is an unknown one.
        if key.revoked is not None:
            message = (
                f"This API key was revoked on {key.revoked:%Y-%m-%d}. Ask an administrator for a new one."
            )
            raise ApiError(401, message, code="revoked_api_key")
        if key.expired(datetime.now(UTC)):
            message = f"This API key expired at {key.expires:%Y-%m-%d %H:%M} UTC. Ask an administrator for a new one."
            raise ApiError(401, message, code="expired_api_key")
        if key.scopes.isdisjoint(scopes):
            wanted = " or ".join(map(repr, scopes))
            message = f"This key may not do that: it needs the scope {wanted}. Ask an administrator for a key with it."
            raise ApiError(403, message, code="missing_scope")
        if "operate" in scopes and key.tenant != self._operator_tenant:
            message = "Policies and the gateway are shared by all tenants: a key of the operators' tenant is needed."
            raise ApiError(403, message, code="missing_scope")
        return key

    def forget(self) -> None:
        """Look every key up again: one has been changed here."""
        self._cache.clear()

    async def _find(self, secret: bytes) -> Key | None:
        digest = hashlib.sha256(secret).digest()
        key, until = self._cache.get(digest, (None, 0.0))
        if key is not None and time.monotonic() < until:
            return key
        known = key
        try:
            key = await asyncio.to_thread(self._keys.find, secret.decode("latin-1"))
        except StoreError:
            if known is None:
                raise
            key = known
        if key is None:
            self._cache.pop(digest, None)
            return None
        if len(self._cache) >= _CACHE_KEYS:
            self._cache.clear()
        self._cache[digest] = (key, time.monotonic() + _CACHE_SECONDS)
        return key


def _as_bearer(authorization: bytes) -> bytes:
    kind, _, credentials = authorization.partition(b" ")
    if kind.lower() != b"basic":
        return authorization
    try:
        return b"Bearer " + base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""
