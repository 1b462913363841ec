"""For administrators: the API keys of their own tenant. A key of another tenant does not exist here."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, Field

from feedback.quota import Quota
from feedback.store import Key
from gateway.description import takes
from gateway.errors import ApiError
from gateway.scopes import Scope, grantable, latest_expiry
from gateway.state import Gateway, gateway_of
from gateway.wire import Body, read

router = APIRouter(tags=["keys"])

# A slash would name one of those for whom the owner of another key rates.
_Owner = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s/]([^/]*[^\s/])?$")]


class CreateKey(Body):
    """A new key: whose, what for, until when, and how much. It belongs to the tenant of the key that makes it."""

    owner: _Owner
    scopes: tuple[Scope, ...] = Field(("invoke", "rate"), min_length=1, max_length=6, strict=False)
    expires: AwareDatetime | None = Field(None, strict=False)  # JSON has no type for a time
    limits: Quota = Quota()


class ChangeKey(Body):
    """The limits that the key has from now on, instead of those that it had."""

    limits: Quota


@router.post("/v1/keys", status_code=201, openapi_extra=takes(CreateKey))
async def create_key(request: Request) -> dict[str, Any]:
    """Make a key. Its secret is in this answer, as `key`, and nowhere else ever."""
    gateway, admin = await _admin(request)
    body = await read(request, CreateKey, gateway.config.max_body_bytes, gateway.config.bounds)
    if beyond := sorted(set(body.scopes) - grantable(admin)):
        message = f"This key cannot give the scope {beyond[0]!r}, for it does not have it."
        raise ApiError(403, message, code="missing_scope", param="scopes")
    if body.expires is not None and body.expires <= datetime.now(UTC):
        raise ApiError(400, "expires: that time is over.", code="invalid_value", param="expires")
    secret = await asyncio.to_thread(
        gateway.keys.create,
        body.owner,
        body.scopes,
        tenant=admin.tenant,
        expires=latest_expiry(admin, body.expires),
        made_by=admin.id,
        quota=body.limits,
    )
    made = await asyncio.to_thread(gateway.keys.find, secret)
    assert made is not None, "it was committed a moment ago"
    return {**_public(made), "key": secret}


@router.get("/v1/keys")
async def list_keys(request: Request) -> dict[str, Any]:
    """Every key of the tenant, oldest first, revoked and expired ones too; without secrets."""
    gateway, admin = await _admin(request)
    keys = await asyncio.to_thread(gateway.keys.of_tenant, admin.tenant)
    return {"object": "list", "data": [_public(key) for key in keys]}


@router.get("/v1/keys/{key_id}")
async def retrieve_key(request: Request, key_id: str) -> dict[str, Any]:
    """One of them."""
    gateway, admin = await _admin(request)
    return _public(await _key(gateway, key_id, admin.tenant))


@router.post("/v1/keys/{key_id}", openapi_extra=takes(ChangeKey))
async def change_key(request: Request, key_id: str) -> dict[str, Any]:
    """Give the key other limits; within two seconds they hold everywhere."""
    gateway, admin = await _admin(request)
    body = await read(request, ChangeKey, gateway.config.max_body_bytes, gateway.config.bounds)
    await _living(gateway, key_id, admin.tenant)
    await asyncio.to_thread(gateway.keys.limit, key_id, body.limits, admin.tenant)
    await gateway.forget_keys()
    return _public(await _key(gateway, key_id, admin.tenant))


@router.delete("/v1/keys/{key_id}")
async def revoke_key(request: Request, key_id: str) -> dict[str, Any]:
    """Refuse the key from now on: at once here, within two seconds everywhere. It stays in the list."""
    gateway, admin = await _admin(request)
    await _living(gateway, key_id, admin.tenant)
    await asyncio.to_thread(gateway.keys.revoke, key_id, admin.tenant)
    await gateway.forget_keys()
    return _public(await _key(gateway, key_id, admin.tenant))


async def _admin(request: Request) -> tuple[Gateway, Key]:
    gateway = gateway_of(request)
    return gateway, await gateway.auth.require(request, "admin")


async def _key(gateway: Gateway, key_id: str, tenant: str) -> Key:
    key = await asyncio.to_thread(gateway.keys.get, key_id, tenant) if key_id.isalnum() else None
    if key is None:
        message = f"There is no key {key_id!r}. GET /v1/keys lists them; the id is not the secret."
        raise ApiError(404, message, code="key_not_found", param="key_id")
    return key


async def _living(gateway: Gateway, key_id: str, tenant: str) -> None:
    if (await _key(gateway, key_id, tenant)).revoked is not None:
        raise ApiError(409, f"The key {key_id} has been revoked already.", code="key_revoked", param="key_id")


def _public(key: Key) -> dict[str, Any]:
    def when(time: datetime | None) -> str | None:
        return None if time is None else time.isoformat()

    return {
        "id": key.id,
        "object": "key",
        "owner": key.owner,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "created": when(key.created),
        "expires": when(key.expires),
        "revoked": when(key.revoked),
        "made_by": key.made_by,
        "limits": key.quota.said(),
    }
