"""Who is calling: `Authorization: Bearer fw-…` → a key with its owner, tenant and scopes."""

import asyncio
import hashlib
import time
from typing import Literal

from starlette.requests import Request

from feedback.store import Key, Keys
from gateway.errors import ApiError

Scope = Literal["invoke", "rate", "operate"]

_CACHE_SECONDS = 2.0  # for so long a revoked key may still work
_CACHE_KEYS = 10_000


class Auth:
    """Looks keys up, and remembers them for two seconds."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._cache: dict[bytes, tuple[Key, float]] = {}

    async def require(self, request: Request, scope: Scope) -> Key:
        """The caller's key. Raises `ApiError`: 401 when it is missing, unknown or revoked, 403 without the scope."""
        return await self.admit(request.headers.get("authorization", "").encode("latin-1"), scope)

    async def admit(self, authorization: bytes, scope: Scope) -> Key:
        """The key of an `Authorization` header. Raises as `require` does."""
        kind, _, secret = authorization.partition(b" ")
        key = await self._find(secret.strip()) if kind.lower() == b"bearer" else None
        if key is None:
            message = "Missing, wrong or revoked API key. Send `Authorization: Bearer fw-…`; an operator makes keys."
            raise ApiError(401, message, code="invalid_api_key")
        if scope not in key.scopes:
            message = f"This key may not do that: it needs the scope {scope!r}. Ask an operator for a key that has it."
            raise ApiError(403, message, code="missing_scope")
        return key

    async def _find(self, secret: bytes) -> Key | None:
        digest = hashlib.sha256(secret).digest()
        key, until = self._cache.get(digest, (None, 0.0))
        if key is not None and time.monotonic() < until:
            return key
        key = await asyncio.to_thread(self._keys.lookup, secret.decode("latin-1"))
        if key is None:
            self._cache.pop(digest, None)
            return None
        if len(self._cache) >= _CACHE_KEYS:
            self._cache.clear()
        self._cache[digest] = (key, time.monotonic() + _CACHE_SECONDS)
        return key
