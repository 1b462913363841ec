"""A configured server: its tools for agents, over one session that all requests share and that is made again when lost.

A rule for servers that change what they say of a tool after it was approved ("rug pull"): name, description and schema
are read when the tools are made, stay as they were for as long as this process lives, and have a digest. Settings may
pin it. Each new session is held to it: a tool that is not what it was is refused, and that is logged as an error.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tools.errors import ToolError, ToolUnavailableError
from tools.mcp.options import McpError, McpOptions

if TYPE_CHECKING:
    from tools.mcp.connection import Connection

_log = logging.getLogger(__name__)


class McpTool:
    """See `tools.tool.Tool`. `tool` is its name at the server, `digest` what it was when it was made."""

    def __init__(
        self,
        server: "McpServer",
        tool: str,
        *,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        digest: str,
    ) -> None:
        self.name = name
        self.description = description
        self.parameters = parameters
        self.tool = tool
        self.digest = digest
        self._server = server

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """What the server answers, fenced. Raises as `Tool.call` does."""
        return await self._server.call(self.tool, self.digest, arguments)


class McpServer:
    """Connects with its first use, and again when the session was lost. `close` it at the end."""

    def __init__(self, name: str, options: McpOptions) -> None:
        self.name = name
        self._options = options
        self._opening: asyncio.Task[Connection] | None = None
        self._opened: list[Connection] = []  # one that was left lasts until the last call there is over

    async def tools(self, offer: Sequence[str]) -> list[McpTool]:
        """The tools of these names, and of no others. Raises `McpError` where the server cannot be used so."""
        from tools.mcp import offered  # noqa: PLC0415  # the SDK takes half a second and 20 MB: see `_open`

        try:
            listing = (await self._connected()).listing
        except ToolUnavailableError as error:
            raise McpError(str(error)) from error
        if missing := [name for name in offer if name not in listing]:
            there = ", ".join(sorted(listing)) or "nothing"
            raise McpError(f"mcp.{self.name} has no tool {missing[0]}; it has: {there}"[:1_000])
        made = []
        for name in dict.fromkeys(offer):
            tool, where = listing[name], f"mcp.{self.name}: {name}"
            offered.check(where, tool)
            digest = offered.digest(tool)
            pinned = self._options.digests
            if pinned and pinned.get(name) != digest:
                raise McpError(f"{where} is not what was approved: its digest is {digest} (`digests`)")
            _log.info("%s is offered, digest %s", where, digest)
            made.append(
                McpTool(
                    self,
                    name,
                    name=offered.function_name(self.name, name),
                    description=tool.description or "",
                    parameters=tool.input_schema,
                    digest=digest,
                )
            )
        return made

    async def call(self, tool: str, digest: str, arguments: Mapping[str, Any]) -> str:
        """Call the tool that had this digest. Raises as `Tool.call` does."""
        from tools.mcp import offered, results  # noqa: PLC0415  # loaded long since, with the connection

        try:
            connection = await self._connected()
        except McpError as error:
            raise ToolUnavailableError(str(error)) from error
        now = connection.listing.get(tool)
        if now is None or offered.digest(now) != digest:
            _log.error("mcp.%s: %s is not what it was when it was offered: it is refused", self.name, tool)
            raise ToolUnavailableError(f"mcp.{self.name} has changed {tool} since it was approved")
        source = f"mcp.{self.name} {tool}"
        try:
            result = await connection.call(tool, arguments)
        except ToolError as error:
            raise ToolError(results.fenced(str(error), source, self._options.max_characters)) from error
        words = results.told(result, source, self._options.max_characters)
        if result.is_error:
            raise ToolError(words)
        return words

    async def close(self) -> None:
        """End the session, and the server where it was started here."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await asyncio.gather(*(connection.close() for connection in self._opened))

    async def _connected(self) -> "Connection":
        """The session. Opening one belongs to no caller: the next would wait as long again if one gave up."""
        opening = self._opening
        if opening is None or (opening.done() and _lost(opening)):
            opening = self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(opening)

    async def _open(self) -> "Connection":
        from tools.mcp.connection import Connection  # noqa: PLC0415  # half a second and 20 MB, for who has a server

        connection = await Connection.open(self.name, self._options)
        self._opened = [*(each for each in self._opened if not each.ended), connection]
        return connection


def _lost(opening: "asyncio.Task[Connection]") -> bool:
    return opening.cancelled() or opening.exception() is not None or opening.result().over
