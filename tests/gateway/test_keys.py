"""An administrator makes and ends the keys of a tenant, and nobody gets more from it than the administrator has."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from feedback.store import Keys
from tests.gateway.conftest import World

KEYS = "/v1/keys"


async def _make(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post(KEYS, json={"owner": "tim", **body})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def _bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_a_key_is_shown_once_and_works_at_once_and_is_refused_at_once_when_revoked(live: World) -> None:
    admin, anyone = live.http("adm"), live.http(None)
    made = await _make(admin, scopes=["invoke"], limits={"requests_per_minute": 60})
    secret = made.pop("key")
    assert (made["owner"], made["tenant"], made["scopes"]) == ("tim", "default", ["invoke"])
    assert made["limits"] == {"requests_per_minute": 60}
    assert made["made_by"] and made["expires"] is None is made["revoked"]
    assert (await anyone.get("/v1/models", headers=_bearer(secret))).status_code == 200
    listed = await admin.get(KEYS)
    assert secret not in listed.text
    assert made in listed.json()["data"]
    path = f"{KEYS}/{made['id']}"
    assert (await admin.get(path)).json() == made
    gone = await admin.delete(path)
    assert gone.status_code == 200 and gone.json()["revoked"]
    refused = await anyone.get("/v1/models", headers=_bearer(secret))
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "revoked_api_key"
    again = await admin.delete(path)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "key_revoked")
    assert (await admin.post(path, json={"limits": {}})).status_code == 409


async def test_an_expired_key_is_told_so_and_an_unknown_one_is_not(live: World) -> None:
    async with live.store() as store:
        over = Keys(store).create("tim", ["invoke"], expires=datetime.now(UTC) - timedelta(days=1))
    client = live.http(None)
    expired = await client.get("/v1/models", headers=_bearer(over))
    unknown = await client.get("/v1/models", headers=_bearer(over[:-1] + "~"))
    assert expired.status_code == unknown.status_code == 401
    assert expired.headers["www-authenticate"] == "Bearer"
    assert expired.json()["error"]["code"] == "expired_api_key"
    assert unknown.json()["error"]["code"] == "invalid_api_key"


async def test_a_key_stops_at_the_moment_that_it_expires_though_it_is_remembered(live: World) -> None:
    admin, client = live.http("adm"), live.http(None)
    soon = (datetime.now(UTC) + timedelta(seconds=0.4)).isoformat()
    secret = (await _make(admin, scopes=["invoke"], expires=soon))["key"]
    seen = set()
    while (response := await client.get("/v1/models", headers=_bearer(secret))).status_code == 200:
        seen.add(response.status_code)
        assert datetime.now(UTC) < datetime.fromisoformat(soon) + timedelta(seconds=1)
    assert seen == {200} and response.json()["error"]["code"] == "expired_api_key"


async def test_limits_of_a_key_can_be_changed(live: World) -> None:
    admin = live.http("adm")
    made = await _make(admin)
    path = f"{KEYS}/{made['id']}"
    limits = {"tokens_per_day": "unlimited", "money_per_month": 12.5}
    assert (await admin.post(path, json={"limits": limits})).json()["limits"] == limits
    assert (await admin.get(path)).json()["limits"] == limits


async def test_an_administrator_gives_every_scope_of_the_tenant_but_operates_only_if_an_operator(
    live: World,
) -> None:
    admin = live.http("adm")
    await _make(admin, scopes=["invoke", "rate", "review", "admin"])
    refused = await admin.post(KEYS, json={"owner": "tim", "scopes": ["operate"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "scopes")
    async with live.store() as store:
        both = Keys(store).create("root", ["admin", "operate"])
    response = await live.http(None).post(
        KEYS, json={"owner": "tim", "scopes": ["operate"]}, headers=_bearer(both)
    )
    assert response.status_code == 201


async def test_a_key_lives_no_longer_than_the_key_that_made_it(live: World) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    async with live.store() as store:
        headers = _bearer(Keys(store).create("temp", ["admin"], expires=ends))
    client = live.http(None)
    for wanted, given in (
        (None, ends),
        (ends + timedelta(days=9), ends),
        (ends - timedelta(minutes=9), ends - timedelta(minutes=9)),
    ):
        body = {"owner": "tim", "expires": wanted.isoformat() if wanted else None}
        made = (await client.post(KEYS, json=body, headers=headers)).json()
        assert datetime.fromisoformat(made["expires"]) == given


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "owner"),
        ({"owner": ""}, "owner"),
        ({"owner": " "}, "owner"),
        ({"owner": "app/tim"}, "owner"),
        ({"owner": "tim", "tenant": "other"}, "tenant"),
        ({"owner": "tim", "scopes": []}, "scopes"),
        ({"owner": "tim", "scopes": ["root"]}, "scopes.0"),
        ({"owner": "tim", "expires": "2020-01-01T00:00:00Z"}, "expires"),
        ({"owner": "tim", "expires": "2090-01-01T00:00:00"}, "expires"),
        ({"owner": "tim", "limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"owner": "tim", "limits": {"requests_per_hour": 1}}, "limits.requests_per_hour"),
    ],
)
async def test_what_is_no_key_is_400_with_the_field(live: World, body: dict[str, Any], param: str) -> None:
    response = await live.http("adm").post(KEYS, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("key_id", ["unknown", "a%2Fb", "*", "0" * 16])
async def test_what_is_no_id_is_as_unknown_as_an_id_that_never_was(live: World, key_id: str) -> None:
    for method in ("GET", "DELETE"):
        assert (await live.http("adm").request(method, f"{KEYS}/{key_id}")).status_code == 404
