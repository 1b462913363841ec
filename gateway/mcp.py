"""The agents and their tools as an MCP server: streamable HTTP, each request by itself, answered with JSON.

https://modelcontextprotocol.io/specification. The SDK speaks the protocol, of every revision that it knows. Each agent
is a tool, `ask_AGENT`, which is a request like any other: limited, recorded, to be rated by the id that comes with it.
Each of its own tools is `AGENT__TOOL`. The query is the request's metadata and so names sources:
`/mcp?database=insurance`.

Loaded where it is switched on, for the SDK takes half a second and 20 MB.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

import orjson
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agents.manifest import Agent
from feedback.store import Key
from gateway.asking import ask
from gateway.errors import EXPECTED, ApiError, to_api_error
from gateway.metering import Meter, Used
from gateway.openai_chat import ChatRequest
from gateway.state import Gateway, gateway_of
from gateway.streaming import unless_disconnected
from gateway.wire import validate

_ASK = "ask_"
_BETWEEN = "__"  # no agent's name has it
_QUESTION = {
    "type": "object",
    "properties": {"question": {"type": "string", "minLength": 1, "description": "In plain words."}},
    "required": ["question"],
    "additionalProperties": False,
}

_Context = ServerRequestContext[Any, Request]
_log = logging.getLogger(__name__)


class McpService:
    """Answers requests whose caller the route has admitted, and left in the state of the request. See `serving`."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager

    def response(self, body: bytes) -> Response:
        """The answer to a request with this body. A client that leaves cancels what it has asked for."""
        return _Answer(self._manager, body)


@asynccontextmanager
async def serving() -> AsyncIterator[McpService]:
    """The service, for as long as the gateway serves."""
    server = Server(
        "flywheel",
        version=metadata.version("flywheel"),
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
    )
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
    logging.getLogger("mcp").setLevel(logging.WARNING)  # a line for each request, at INFO
    async with manager.run():
        yield McpService(manager)


class _Answer(Response):
    def __init__(self, manager: StreamableHTTPSessionManager, body: bytes) -> None:
        super().__init__()
        self._manager = manager
        self._asked = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiting = [self._asked]

        async def once() -> Message:
            if not waiting:
                await asyncio.Event().wait()  # that the client has gone is watched below
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}

        await unless_disconnected(receive, self._manager.handle_request(scope, once, send))


async def _list_tools(context: _Context, _: PaginatedRequestParams | None) -> ListToolsResult:
    gateway, caller, sources = _asked(context)
    tools = []
    for agent in gateway.agents.values():
        tools.append(Tool(name=_ASK + agent.name, description=agent.description, input_schema=_QUESTION))
        try:
            box = await gateway.tooling.toolbox(agent, sources, caller.tenant)
        except ApiError as error:  # a source that the query does not name, or that is away
            _log.info("the tools of %s are not listed: %s", agent.name, error.message)
            continue
        tools += [
            Tool(
                name=agent.name + _BETWEEN + spec.name,
                description=spec.description,
                input_schema=dict(spec.parameters),
            )
            for spec in (box.specs if box else ())
        ]
    return ListToolsResult(tools=tools, ttl_ms=0, cache_scope="private")


async def _call_tool(context: _Context, called: CallToolRequestParams) -> CallToolResult:
    try:
        return await _called(context, called)
    except MCPError:
        raise
    except EXPECTED as error:
        return _told(to_api_error(error).message, failed=True)
    except Exception as error:  # the edge: the SDK would tell the client what it says
        request_id = context.request.state.request_id if context.request else "?"
        _log.exception("defect while %s was called by MCP (%s)", called.name, request_id)
        raise MCPError(INTERNAL_ERROR, f"The gateway failed. Report this request id: {request_id}") from error


async def _called(context: _Context, called: CallToolRequestParams) -> CallToolResult:
    gateway, caller, sources = _asked(context)
    arguments = called.arguments or {}
    asks = called.name.startswith(_ASK)
    name, _, tool = called.name.removeprefix(_ASK).partition(_BETWEEN)
    agent = gateway.agents.get(name)
    if agent is None or asks == bool(tool):
        raise MCPError(INVALID_PARAMS, f"there is no tool {called.name}: see tools/list")
    assert context.request is not None
    if asks:
        return await _ask(context.request, caller, agent, arguments, sources)
    return await _use(gateway, caller, agent, tool, arguments, sources)


async def _ask(
    request: Request, caller: Key, agent: Agent, arguments: dict[str, Any], sources: dict[str, str]
) -> CallToolResult:
    question = arguments.get("question")
    if not isinstance(question, str) or not question or len(arguments) > 1:
        return _told("ask_… takes one argument, `question`: a text.", failed=True)
    body = {"model": agent.name, "messages": [{"role": "user", "content": question}], "metadata": sources}
    chat = validate(body, ChatRequest)
    asked = await ask(
        request,
        caller,
        agent,
        model=agent.name,
        messages=chat.input(agent),
        sampling=chat.sampling(agent),
        metadata=chat.recorded_metadata(),
    )
    try:
        finished = await asked.answer.finished()
    finally:
        await asked.answer.cancel()
        request.state.waited = asked.answer.waited
    about = {"flywheel/request_id": request.state.request_id, "flywheel/policy": asked.target.policy}
    return CallToolResult(content=[TextContent(text=finished.text)], meta=about)


async def _use(
    gateway: Gateway,
    caller: Key,
    agent: Agent,
    tool: str,
    arguments: dict[str, Any],
    sources: dict[str, str],
) -> CallToolResult:
    box = await gateway.tooling.toolbox(agent, sources, caller.tenant)
    if box is None or tool not in {spec.name for spec in box.specs}:
        raise MCPError(INVALID_PARAMS, f"{agent.name} has no tool {tool}: see tools/list")
    text = orjson.dumps(arguments).decode()
    meter = await Meter.admit(gateway.limits, caller, agent.name, characters=len(text), completion=0)
    try:
        outcome = await box.run(tool, text)
    finally:
        meter.settle(Used(0, 0))  # the request counts; no model has read or written a token
    _log.info(
        "%s of %s used %s of %s by MCP: %s in %.3f s",
        caller.owner,
        caller.tenant,
        tool,
        agent.name,
        "an answer" if outcome.error is None else "an error",
        outcome.latency,
    )
    return _told(
        outcome.result or "" if outcome.error is None else outcome.error, failed=outcome.error is not None
    )


def _told(text: str, *, failed: bool) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=failed)


def _asked(context: _Context) -> tuple[Gateway, Key, dict[str, str]]:
    assert context.request is not None, "over HTTP there is one"
    request = context.request
    return gateway_of(request), request.state.caller, dict(request.query_params)
