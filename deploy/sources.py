"""What agents' tools read, looked at from the operator's side: does it answer, and is it as the settings say?"""

import asyncio
from collections.abc import Iterator

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from agents.manifest import Agent
from deploy import agents
from deploy.finding import Finding
from deploy.settings import Settings
from gateway.sources import DatabaseSource
from tools import sql
from tools.documents.library import Library
from tools.errors import ToolUnavailableError
from tools.mcp.options import McpError
from tools.mcp.server import McpServer, McpTool
from tools.sql.inspection import engine_for

_MAY_WRITE = text(
    "SELECT bool_or(has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
)


def manifests(settings: Settings) -> Iterator[Finding]:
    """Whether the agents are sound, and MCP servers offer them what they name."""
    for folder, agent, faults in agents.check(settings.agents.folders, settings):
        for fault in faults:
            yield Finding("broken", fault, f"mend it; `flywheel agents check {folder}` looks again")
        if agent is not None and not faults:
            yield Finding("ok", f"agent {agent.name}: {', '.join(agents.tools_of(agent)) or 'no tools'}")
            yield from pinned(agent, settings)


def pinned(agent: Agent, settings: Settings) -> Iterator[Finding]:
    """The tools that MCP servers have for the agent, each with the digest of what it says of itself."""
    for name, section in agent.tools.mcp.items() if agent.limits.turns > 1 else ():
        try:
            for tool in asyncio.run(_offered(McpServer(name, settings.mcp[name]), section.offer)):
                yield Finding("ok", f"mcp.{name} has {tool.tool}, digest {tool.digest}")
        except McpError as error:
            yield Finding(
                "broken", str(error), f"start or mend the server, or see [mcp.{name}] in flywheel.toml"
            )


def databases(settings: Settings) -> Iterator[Finding]:
    """Whether agents can read the databases, and whether the databases themselves keep them from writing."""
    for name, options in settings.databases.items():
        mend = f"see [databases.{name}] in flywheel.toml"
        try:
            tables = asyncio.run(_tables(name, options))
            may_write = make_url(options.url).get_backend_name() == "postgresql" and _may_write(options)
        except (ToolUnavailableError, ValueError, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0]
            yield Finding("broken", f"database {name} cannot be asked: {reason}", mend)
            continue
        if not tables:
            yield Finding("broken", f"database {name} has no tables that agents may read", mend)
        elif may_write:
            more = "its tools refuse that; let a role that can only read be the second fence"
            yield Finding("warning", f"database {name} answers, {tables} tables; its role may write", more)
        else:
            yield Finding("ok", f"database {name} answers, {tables} tables, read-only")


def documents(settings: Settings) -> Iterator[Finding]:
    """Whether the library of documents can be read."""
    folder = settings.documents.folder
    if not folder.is_dir():
        yield Finding("ok", f"no documents yet: `flywheel documents add` makes {folder}")
        return
    try:
        count = len(Library(folder).entries("default"))
    except (OSError, ValueError, TypeError) as error:
        yield Finding(
            "broken", f"the documents in {folder} cannot be read: {error}", "see [documents] folder"
        )
    else:
        yield Finding("ok", f"{count} documents of the tenant default in {folder}")


async def _offered(server: McpServer, offer: tuple[str, ...]) -> list[McpTool]:
    try:
        return await server.tools(offer)
    finally:
        await server.close()


async def _tables(name: str, options: DatabaseSource) -> int:
    source = sql.Source(name, options)
    try:
        return len((await source.schema()).tables)
    finally:
        await source.close()


def _may_write(options: DatabaseSource) -> bool:
    engine = engine_for(make_url(options.url))
    try:
        with engine.connect() as connection:
            return bool(connection.execute(_MAY_WRITE).scalar())
    finally:
        engine.dispose()
