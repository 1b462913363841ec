"""The table of scopes is what the gateway does: every route is in it, and asks for what it says."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from feedback.store import Keys
from gateway.app import create_app
from gateway.scopes import MEANING, ROUTES, SCOPES
from tests.gateway.conftest import World

_ELSEWHERE = {"x-forwarded-for": "192.0.2.1"}  # on the gateway's own machine, /metrics is open to everybody


def _routes(world: World) -> Iterator[str]:
    for route in create_app(world.config).routes:
        assert isinstance(route, Route | APIRoute)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield f"{method} {route.path}"


async def test_every_route_is_in_the_table_and_every_line_of_it_is_a_route(world: World) -> None:
    assert set(_routes(world)) == set(ROUTES)


def test_every_scope_has_a_meaning_and_a_use() -> None:
    assert set(MEANING) == set(SCOPES) == {scope for scopes in ROUTES.values() for scope in scopes}


async def test_a_route_is_open_to_the_scopes_of_its_line_and_to_no_other(live: World) -> None:
    async with live.store() as store:
        secrets = {scope: Keys(store).create("tim", [scope]) for scope in SCOPES}
    client = live.http(None)

    async def call(line: str, secret: str | None) -> httpx.Response:
        method, path = line.split()
        for name in (
            "name",
            "policy",
            "agent",
            "key_id",
            "response_id",
            "feedback_id",
            "score_id",
            "trace_id",
        ):
            path = path.replace(f"{{{name}}}", "unknown")
        headers = _ELSEWHERE if secret is None else {**_ELSEWHERE, "authorization": f"Bearer {secret}"}
        return await client.request(method, path, headers=headers, content=b"{}")

    for line, scopes in ROUTES.items():
        assert (await call(line, None)).status_code == (401 if scopes else 200), line
        for scope, secret in secrets.items():
            refused = (await call(line, secret)).status_code == 403
            assert refused == bool(scopes and scope not in scopes), (line, scope)


@pytest.mark.parametrize("line", [line for line, scopes in ROUTES.items() if "operate" in scopes])
async def test_what_all_tenants_share_is_closed_to_a_tenant_that_is_not_the_operators(
    live: World, line: str
) -> None:
    method, path = line.split()
    response = await live.http("mal").request(method, path, headers=_ELSEWHERE, content=b"{}")
    assert response.status_code == 403
    assert "shared by all tenants" in response.json()["error"]["message"]
