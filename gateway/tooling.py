"""The tools of agents: each source is opened once, and each request gets the toolbox that its agent is offered there.

A manifest's section names the source, or the request's `metadata` does: `database`, `document`. Who may use what is
decided here, by the caller's tenant, before a model has read a word: no tool takes the name of a source from a model.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from agents.manifest import Agent, McpTools, ToolSource
from gateway.config import GatewayConfig
from gateway.errors import ApiError
from gateway.sources import open_to
from tools import documents, knowledge, sql
from tools.documents.library import Entry, Library, UnknownDocumentError
from tools.embedding import Embedder, EmbeddingError, EmbeddingOptions, open_embedder
from tools.errors import ToolUnavailableError
from tools.knowledge import Knowledge
from tools.mcp.options import McpError
from tools.mcp.server import McpServer
from tools.tool import Tool
from tools.toolbox import Toolbox, ToolPolicy

_KEPT = 64  # toolboxes: each document that is read has one, with the document
_SHOWN = 20  # names, in a refusal
_START_SECONDS = 10.0  # that a start waits for a source; then the gateway answers without it

_AWAY = (
    McpError,
    ToolUnavailableError,
    ValueError,
)  # the last: what is said of a source does not fit what is there

_log = logging.getLogger(__name__)


class Tooling:
    """What agents may use. Made by `tooling`."""

    def __init__(
        self,
        config: GatewayConfig,
        databases: Mapping[str, sql.Source],
        library: Library,
        servers: Mapping[str, McpServer],
        knowledge: Callable[[str], Knowledge],
    ) -> None:
        self._config = config
        self._databases = databases
        self._library = library
        self._servers = servers
        self._knowledge = knowledge
        self._boxes: OrderedDict[tuple[str, ...], Toolbox] = OrderedDict()

    async def toolbox(self, agent: Agent, metadata: Mapping[str, str], tenant: str) -> Toolbox | None:
        """What the agent is offered in one request; None: nothing.

        Raises `ApiError`: 400 where the request must name a source, or names one that is not there for the tenant; 503
        where one cannot be reached.
        """
        if agent.limits.turns == 1:
            return None
        own = agent.tools
        boxes = [await self._mcp(agent, name, section, tenant) for name, section in own.mcp.items()]
        if own.sql is not None:
            boxes.append(await self._sql(agent, own.sql, metadata, tenant))
        if own.documents is not None:
            boxes.append(await self._documents(agent, own.documents, metadata, tenant))
        if own.knowledge is not None:
            boxes.append(await self._known(agent, own.knowledge, tenant))
        return Toolbox.of(*boxes) if boxes else None

    async def warm(self, agent: Agent) -> None:
        """Reach for what the agent may be asked to work with. What is away is logged; each request asks again."""
        for name, section in agent.tools.mcp.items():
            await _warned(self._servers[name].tools(section.offer))
        if agent.tools.sql is not None:
            named = agent.tools.sql.source
            for name, source in self._databases.items():
                if named in (None, name):
                    await _warned(source.schema())

    async def _sql(
        self, agent: Agent, section: ToolSource, metadata: Mapping[str, str], tenant: str
    ) -> Toolbox:
        there = open_to(self._config.databases, tenant)
        name = _chosen(agent, "database", section.source, metadata.get("database"), there)

        async def make() -> list[Tool]:
            await self._databases[name].schema()
            return _offered(sql.tools(self._databases[name]), section)

        return await self._box((agent.name, "sql", name), section, make)

    async def _documents(
        self, agent: Agent, section: ToolSource, metadata: Mapping[str, str], tenant: str
    ) -> Toolbox:
        asked = metadata.get("document")
        entry = None if asked is None else await asyncio.to_thread(self._found, asked, tenant)
        if entry is None:
            entries = await asyncio.to_thread(self._library.entries, tenant)
            raise _refused(agent, "document", asked, sorted({entry.name for entry in entries}))

        async def make() -> list[Tool]:
            read = partial(documents.tools, self._library, entry.id, tenant)
            return _offered(await asyncio.to_thread(read), section)

        return await self._box((agent.name, "documents", tenant, entry.id), section, make)

    def _found(self, document: str, tenant: str) -> Entry | None:
        try:
            return self._library.find(document, tenant)
        except UnknownDocumentError:
            return None

    async def _known(self, agent: Agent, section: ToolSource, tenant: str) -> Toolbox:
        seen = self._knowledge(tenant)

        async def make() -> list[Tool]:
            return _offered(knowledge.tools(seen), section)

        return await self._box((agent.name, "knowledge", tenant, seen.digest), section, make)

    async def _mcp(self, agent: Agent, name: str, section: McpTools, tenant: str) -> Toolbox:
        if not self._config.mcp[name].open_to(tenant):
            message = f"{agent.name} works with {name}, which is not open to your tenant. Ask the operator."
            raise ApiError(400, message, code="source_not_allowed", param="model")
        make = partial(self._servers[name].tools, section.offer)
        return await self._box((agent.name, "mcp", name), section, make)

    async def _box(
        self,
        key: tuple[str, ...],
        section: ToolSource | McpTools,
        make: Callable[[], Awaitable[Sequence[Tool]]],
    ) -> Toolbox:
        """The toolbox of this key, with its breakers; made where there is none yet."""
        if key not in self._boxes:
            try:
                made = await make()
            except _AWAY as error:
                message = f"{key[0]} cannot work now: {error}. Retry shortly."
                raise ApiError(503, message, code="tool_unavailable", retry_after=5) from error
            policy = ToolPolicy(seconds=section.seconds, attempts=section.attempts)
            self._boxes[key] = Toolbox({tool.name: (tool, policy) for tool in made})
            if len(self._boxes) > _KEPT:
                self._boxes.popitem(last=False)
        self._boxes.move_to_end(key)
        return self._boxes[key]


@asynccontextmanager
async def tooling(
    config: GatewayConfig, agents: Iterable[Agent], knowledge_of: Callable[[str], Knowledge]
) -> AsyncIterator[Tooling]:
    """The sources that are configured, open for as long as the block lasts.

    `knowledge_of` gives what a tenant may know now.
    """
    used = [agent for agent in agents if agent.limits.turns > 1]
    async with AsyncExitStack() as stack:
        databases = {name: sql.Source(name, options) for name, options in config.databases.items()}
        servers = {name: McpServer(name, options) for name, options in config.mcp.items()}
        for database in databases.values():
            stack.push_async_callback(database.close)
        for server in servers.values():
            stack.push_async_callback(server.close)
        reads = any(agent.tools.documents is not None for agent in used)
        embedder = await asyncio.to_thread(_embedder, config.embedding) if reads else None
        tools = Tooling(config, databases, Library(config.documents.folder, embedder), servers, knowledge_of)
        for agent in used:
            await tools.warm(agent)
        yield tools


async def _warned(reaching: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            await reaching
    except (*_AWAY, TimeoutError) as error:
        reason = str(error) or f"no answer within {_START_SECONDS:g} s"
        _log.warning("%s. Requests that need it are refused until that is mended", reason)


def _embedder(options: EmbeddingOptions) -> Embedder | None:
    try:
        return open_embedder(options)
    except EmbeddingError as error:
        _log.warning("%s. Until that is mended, documents are searched by their words only", error)
        return None


def _offered(tools: Sequence[Tool], section: ToolSource) -> list[Tool]:
    return [tool for tool in tools if section.offer is None or tool.name in section.offer]


def _chosen(agent: Agent, kind: str, own: str | None, asked: str | None, there: Collection[str]) -> str:
    """The source that the manifest names, or else the request. Raises `ApiError` (400)."""
    if own is not None and asked not in (None, own):
        message = f"{agent.name} works on the {kind} {own} only. Leave metadata.{kind} out."
        raise ApiError(400, message, code="invalid_value", param=f"metadata.{kind}")
    name = own or asked
    if name is None or name not in there:
        raise _refused(agent, kind, name, there)
    return name


def _refused(agent: Agent, kind: str, asked: str | None, there: Collection[str]) -> ApiError:
    """What somebody is told who has not named a source, or one that is not there for them."""
    names = ", ".join(list(there)[:_SHOWN]) or "none yet"
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    what = f"There is no {kind} {asked!r} for you." if asked else f"{agent.name} works on a {kind}."
    message = f"{what} Name one in metadata.{kind}; there are: {names}{more}."
    code = "invalid_value" if asked else "missing_required_parameter"
    return ApiError(400, message, code=code, param=f"metadata.{kind}")
