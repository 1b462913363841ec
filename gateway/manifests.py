"""The agents that are served: their manifests, held against what the operator has configured for them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from agents.faults import Fault, line_of
from agents.manifest import Agent, ManifestError, ToolSource
from gateway.sources import DatabaseSource, McpSource
from tools.arguments import nearest

TOOLS: Mapping[str, tuple[str, ...]] = {  # what there is to offer
    "sql": ("run_sql", "list_tables", "describe_table", "sample_values"),
    "documents": ("select_pages", "search_text", "search_meaning"),
    "knowledge": ("search_knowledge",),
}


class Sources(Protocol):
    """What is configured for agents' tools: a gateway's configuration, or the settings it is made from."""

    @property
    def databases(self) -> Mapping[str, DatabaseSource]:
        """Databases, by name."""
        ...

    @property
    def mcp(self) -> Mapping[str, McpSource]:
        """MCP servers, by name."""
        ...


def load(folders: Iterable[Path], turns: Mapping[str, int], sources: Sources) -> dict[str, Agent]:
    """The agents by name; `turns` stands in place of what manifests say. Raises `ManifestError`."""
    agents: dict[str, Agent] = {}
    for folder in folders:
        agent = read(folder, turns, sources)
        if agent.name in agents:
            raise ManifestError(f"{folder}: another agent is called {agent.name} already: rename one of them")
        agents[agent.name] = agent
    if unknown := sorted(turns.keys() - agents.keys()):
        raise ManifestError(f"[agents] turns: no agent is called {unknown[0]}: {nearest(unknown[0], agents)}")
    return agents


def read(folder: Path, turns: Mapping[str, int], sources: Sources) -> Agent:
    """One agent. Raises `ManifestError` with a line for each fault: where, what, and the mend."""
    agent = Agent.load(folder)
    if agent.name in turns:
        limits = agent.limits.model_copy(update={"turns": turns[agent.name]})
        agent = agent.model_copy(update={"limits": limits})
    path = folder / "manifest.toml"
    found = list(_faults(agent, sources)) if agent.limits.turns > 1 else ()
    if found:
        text = path.read_text("utf-8")
        raise ManifestError("\n".join(fault.told(path, line_of(text, fault.path)) for fault in found))
    return agent


def _faults(agent: Agent, sources: Sources) -> Iterator[Fault]:
    """What the agent asks for and is not there."""
    own = agent.tools
    if own.sql is not None:
        yield from _offered(own.sql, "sql")
        name, there = own.sql.source, sources.databases
        if not there:
            yield Fault(
                ("tools", "sql"),
                "no database is configured: add [databases.NAME] with its url to flywheel.toml",
            )
        elif name is not None and name not in there:
            message = f"there is no [databases.{name}] in flywheel.toml: {nearest(name, there)}"
            yield Fault(("tools", "sql", "source"), f"{message}; add it, or name another")
    if own.documents is not None:
        yield from _offered(own.documents, "documents")
        if own.documents.source is not None:
            message = "each tenant has one library, and a request names its document: leave source out"
            yield Fault(("tools", "documents", "source"), message)
    if own.knowledge is not None:
        yield from _offered(own.knowledge, "knowledge")
        if own.knowledge.source is not None:
            yield Fault(
                ("tools", "knowledge", "source"), "there is one knowledge, of [knowledge]: leave source out"
            )
    for name in own.mcp:
        if name not in sources.mcp:
            message = f"there is no [mcp.{name}] in flywheel.toml: {nearest(name, sources.mcp)}"
            yield Fault(("tools", "mcp", name), f"{message}; add it with its command or url, or name another")


def _offered(section: ToolSource, kind: str) -> Iterator[Fault]:
    for name in section.offer or ():
        if name not in TOOLS[kind]:
            yield Fault(("tools", kind, "offer"), f"there is no tool {name}: {nearest(name, TOOLS[kind])}")
