"""One session with a server. The SDK's cancel scopes belong to the task that opened them, so it has a task of its own.

Whoever calls a tool waits for the answer in a task of theirs; cancelling that tells the server, and ends nothing else.
"""

import asyncio
import logging
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from mcp import MCPError
from mcp.client import Client, ClientSession
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    REQUEST_TIMEOUT,
    CallToolResult,
    Implementation,
    PaginatedRequestParams,
    Tool,
)
from pydantic import ValidationError

from tools.errors import ToolError, ToolUnavailableError
from tools.mcp.http import http
from tools.mcp.options import McpError, McpOptions
from tools.mcp.stdio import stdio

_PAGES = 50  # of a list of tools
_TOOLS = 1_000
_CLOSE_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Connection:
    """A server that has been spoken to. `listing`: what it offers, by name. `over`: no more calls go here."""

    def __init__(self, name: str, options: McpOptions) -> None:
        self.over = False
        self.listing: Mapping[str, Tool] = {}
        self._name = name
        self._options = options
        self._session: asyncio.Future[ClientSession] = asyncio.get_running_loop().create_future()
        self._end = asyncio.Event()
        self._calls = 0
        self._in_vain = 0.0  # seconds that calls have waited since the last answer
        self._task = asyncio.create_task(self._own())

    @classmethod
    async def open(cls, name: str, options: McpOptions) -> "Connection":
        """Start the server or call it, and list its tools. Raises `ToolUnavailableError`, `McpError`."""
        for library in ("mcp", "httpx2"):  # a line for each request, at INFO
            logging.getLogger(library).setLevel(logging.WARNING)
        connection = cls(name, options)
        try:
            async with asyncio.timeout(options.connect_seconds):
                await connection._list(await asyncio.shield(connection._session))
        except BaseException as error:
            connection._task.cancel()
            await asyncio.wait({connection._task})
            if isinstance(error, TimeoutError):
                message = f"mcp.{name} was not ready within {options.connect_seconds:g} s"
                raise ToolUnavailableError(message) from error
            if isinstance(error, MCPError | ValidationError | RuntimeError):
                raise ToolUnavailableError(f"mcp.{name} cannot be used: {_words(error)}") from error
            raise
        return connection

    @property
    def ended(self) -> bool:
        """Nothing is left of it."""
        return self._task.done()

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """What the server answers. Raises `ToolError` for arguments that it refuses, and `ToolUnavailableError`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._calls += 1
        try:
            result = await self._session.result().call_tool(
                tool, dict(arguments), self._options.seconds, allow_input_required=True
            )
            self._in_vain = 0.0
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                self._in_vain = 0.0
                raise ToolError(error.message) from error
            waited = loop.time() - began
            if (
                error.code == REQUEST_TIMEOUT and waited >= self._options.seconds
            ):  # servers use the code as well
                self._waited(waited)
            else:  # it may have lost the session, or its mind: the next call begins anew
                self.over = True
            raise ToolUnavailableError(f"mcp.{self._name}: {_words(error)}") from error
        except (ValidationError, RuntimeError) as error:
            raise ToolUnavailableError(f"mcp.{self._name} does not answer as it declares: {error}") from error
        except asyncio.CancelledError:
            self._waited(loop.time() - began)
            raise
        finally:
            self._calls -= 1
            if self.over and not self._calls:
                self._end.set()
        if not isinstance(result, CallToolResult):
            raise ToolError(f"{tool} asks for a person's input, which it cannot have here")
        return result

    async def close(self) -> None:
        """End it, and the server where it was started here."""
        self._end.set()
        await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.wait({self._task})

    def _waited(self, seconds: float) -> None:
        """A call was given up. After so long without any answer, the server is taken for hung."""
        self._in_vain += seconds
        if self._in_vain >= self._options.seconds:
            _log.warning("mcp.%s has not answered for %.0f s of calls: it is left", self._name, self._in_vain)
            self.over = True

    async def _own(self) -> None:
        options = self._options
        transport = stdio(self._name, options, self._end.set) if options.command else http(options)
        us = Implementation(name="flywheel", version=metadata.version("flywheel"))
        try:
            # Without callbacks, the SDK refuses what a server asks of us: sampling, elicitation, roots.
            async with Client(transport, client_info=us, cache=None) as client:
                self._session.set_result(client.session)
                await self._end.wait()
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # whatever ends a session is told, and no more
            fault = _fault(self._name, error)
            if self._session.done():
                _log.warning("%s", fault)
            else:
                self._session.set_exception(fault)
        finally:
            self.over = True
            self._session.cancel()

    async def _list(self, session: ClientSession) -> None:
        tools: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(_PAGES):
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            tools.update((tool.name, tool) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None or len(tools) > _TOOLS:
                break
        self.listing = tools


def _fault(name: str, error: BaseException) -> Exception:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, McpError):
        return McpError(f"mcp.{name}: {error}")
    if isinstance(error, FileNotFoundError | PermissionError):
        return McpError(f"mcp.{name} cannot be started: {error}")
    return ToolUnavailableError(f"mcp.{name} cannot be reached: {_words(error)}")


def _words(error: BaseException) -> str:
    if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        return "the connection has ended"
    return str(error) or type(error).__name__
