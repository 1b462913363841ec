"""Agents and their tools at /mcp, asked with the protocol's own client."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from feedback.quota import Quota
from gateway.limits.config import LimitsConfig
from gateway.sources import McpSource
from tests.gateway.conftest import AGENT, TEXT, World, until
from tests.tools.mcp import crm
from tests.tools.mcp.test_http import serving

SUPPORT = "support"
FIND, SLOW, ASK = "support__crm__find_customer", "support__crm__slow", f"ask_{AGENT}"
_MANIFEST = """
name = "support"
description = "Answers customers."
prompt = "prompt.jinja"
response_schema = '{"type": "object"}'
[limits]
turns = 4
[tools.mcp.crm]
offer = ["find_customer", "slow"]
[metrics.useful]
type = "boolean"
"""


def agent_in(folder: Path) -> Path:
    folder.mkdir()
    (folder / "manifest.toml").write_text(_MANIFEST)
    (folder / "prompt.jinja").write_text("Help. Tools: {{ tools | join(', ') }}.")
    return folder


@asynccontextmanager
async def supporting(world: World, cancelled: list[str] | None = None, **changes: Any) -> AsyncIterator[None]:
    """A gateway with MCP switched on, and an agent whose tools are another server's, open to one tenant."""
    async with serving(crm.server(cancelled=cancelled).streamable_http_app()) as url:
        source = McpSource(url=url, tenants=("default",))
        agents = (*world.config.agents, agent_in(world.folder / SUPPORT))
        async with world.running(mcp_server=True, agents=agents, mcp={"crm": source}, **changes):
            yield


@pytest.fixture
async def mcp(world: World) -> AsyncIterator[World]:
    async with supporting(world):
        yield world


@asynccontextmanager
async def client(
    world: World, who: str | None = "ann", mode: str = "auto", query: str = ""
) -> AsyncIterator[Client]:
    headers = {} if who is None else {"authorization": f"Bearer {world.keys[who]}"}
    async with httpx2.AsyncClient(headers=headers, timeout=20, verify=False, trust_env=False) as http:
        transport = streamable_http_client(f"{world.url}/mcp{query}", http_client=http)
        async with Client(transport, mode=mode) as connected:
            yield connected


def text(result: object) -> str:
    assert isinstance(result, CallToolResult)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_agents_and_their_tools_are_listed_and_called_by_clients_of_both_generations(
    mcp: World, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(mcp, mode=mode) as ann:
        tools = {tool.name: tool for tool in (await ann.list_tools()).tools}
        assert list(tools) == [ASK, "ask_support", FIND, SLOW]
        assert tools[FIND].input_schema["properties"]["name"]["maxLength"] == 40
        with caplog.at_level(logging.INFO, "gateway.mcp"):
            found = await ann.call_tool(FIND, {"name": "Ada"})
        assert "Ada, customer 7" in text(found) and not found.is_error
        assert "ann of default used crm__find_customer of support by MCP: an answer" in caplog.text
        missing = await ann.call_tool(FIND, {"name": "nobody"})
        assert missing.is_error and "no such customer" in text(missing)


async def test_an_agent_that_is_asked_answers_and_is_recorded_and_rated_as_by_any_other_way(
    mcp: World,
) -> None:
    async with client(mcp, query="?app=desk") as ann:
        answer = await ann.call_tool(ASK, {"question": TEXT})
    assert not answer.is_error and answer.meta is not None
    request_id = answer.meta["flywheel/request_id"]
    recorded = await mcp.recorded(request_id)
    assert (recorded.agent, recorded.caller, recorded.output) == (AGENT, "ann", text(answer))
    assert (recorded.input[-1].text, recorded.metadata) == (TEXT, {"app": "desk"})
    rated = await mcp.http().post("/v1/feedback", json={"request_id": request_id, "value": True})
    assert rated.json()["matched"] is True


@pytest.mark.parametrize("who", [None, "rev"], ids=["no key", "a key without the scope"])
async def test_a_caller_without_a_key_that_may_ask_hears_nothing(mcp: World, who: str | None) -> None:
    with pytest.raises((MCPError, ExceptionGroup)):
        async with client(mcp, who) as caller:
            await caller.list_tools()
    refused = await mcp.http(who).post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert refused.status_code == (401 if who is None else 403)


async def test_another_tenant_is_listed_and_given_only_what_is_open_to_it(mcp: World) -> None:
    async with client(mcp, "eve") as eve:
        assert [tool.name for tool in (await eve.list_tools()).tools] == [ASK, "ask_support"]
        refused = await eve.call_tool(FIND, {"name": "Ada"})
        assert refused.is_error and "not open to your tenant" in text(refused)
        answer = await eve.call_tool(ASK, {"question": TEXT})
    assert answer.meta is not None
    assert (await mcp.recorded(answer.meta["flywheel/request_id"], "other")).tenant == "other"


async def test_arguments_beyond_the_bounds_are_refused_and_reach_nobody(mcp: World) -> None:
    async with client(mcp) as ann:
        long = await ann.call_tool(ASK, {"question": 9_000 * "x"})
        assert long.is_error and "8000. Shorten" in text(long)
        for wrong in ({}, {"question": ""}, {"question": 7}, {"question": "?", "model": "other"}):
            assert "one argument" in text(await ann.call_tool(ASK, wrong))
    http = mcp.http()
    params = {"name": FIND, "arguments": {"name": 2_000_000 * "x"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    assert (await http.post("/mcp", json=call)).status_code == 413
    assert (await http.post("/mcp", content=200 * b"[" + 200 * b"]")).status_code == 400
    assert (await http.post("/mcp", content=b"{")).status_code == 400
    assert mcp.vllm.requests == []


@pytest.mark.parametrize(
    "name", ["run_sql", "ask_nobody", "support__run_sql", "ask_support__run_sql", "support__"]
)
async def test_a_tool_that_is_not_there_is_an_error_of_the_protocol(mcp: World, name: str) -> None:
    async with client(mcp) as ann:
        with pytest.raises(MCPError, match="see tools/list"):
            await ann.call_tool(name, {})


async def test_a_call_that_is_cancelled_is_cancelled_at_the_tool(world: World) -> None:
    cancelled: list[str] = []
    async with supporting(world, cancelled), client(world) as ann:
        asking = asyncio.create_task(ann.call_tool(SLOW, {"seconds": 60}))
        await asyncio.sleep(0.5)
        asking.cancel()
        await until(lambda: cancelled)
        assert "Ada" in text(await ann.call_tool(FIND, {"name": "Ada"}))


async def test_an_agent_whose_asker_cancels_stops_and_is_recorded_as_cancelled(mcp: World) -> None:
    mcp.vllm.seconds_per_chunk = 0.2
    async with client(mcp) as ann:
        asking = asyncio.create_task(ann.call_tool(ASK, {"question": TEXT}))
        await until(lambda: mcp.vllm.running)
        asking.cancel()
        await until(lambda: mcp.vllm.aborted == 1)
    async with mcp.store() as store:
        await until(lambda: list(store.requests(tenant="default")))
        (event,) = store.requests(tenant="default")
    assert event.status == "cancelled"


async def test_limits_hold_for_agents_and_tools_alike(world: World) -> None:
    async with supporting(world, limits=LimitsConfig(key=Quota(requests_per_minute=2))), client(world) as ann:
        assert not (await ann.call_tool(FIND, {"name": "Ada"})).is_error
        assert not (await ann.call_tool(ASK, {"question": TEXT})).is_error
        for name, arguments in ((FIND, {"name": "Ada"}), (ASK, {"question": TEXT})):
            refused = await ann.call_tool(name, arguments)
            assert refused.is_error and "Rate limit reached" in text(refused)


async def test_a_source_that_is_away_takes_nothing_but_its_tools_from_the_list(world: World) -> None:
    agents = (*world.config.agents, agent_in(world.folder / SUPPORT))
    away = {"crm": McpSource(url="http://127.0.0.1:9/mcp")}
    async with world.running(mcp_server=True, agents=agents, mcp=away), client(world) as ann:
        assert [tool.name for tool in (await ann.list_tools()).tools] == [ASK, "ask_support"]
        refused = await ann.call_tool(FIND, {"name": "Ada"})
        assert refused.is_error and "cannot be reached" in text(refused)


async def test_where_it_is_off_it_says_how_to_switch_it_on(live: World) -> None:
    answer = await live.http().post("/mcp", json={})
    assert answer.status_code == 404 and "mcp = true" in answer.json()["error"]["message"]
    assert (await live.http().get("/mcp")).status_code == 405
