"""What an agent works with on a task: the tables of the task's database in its prompt, and the tools of its manifest.

They are production's own tools, on the task's database or contract. Those of MCP servers are the deployment's own.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlalchemy

from agents.manifest import Agent, ToolSource
from evaluation.errors import EvaluationError
from evaluation.running import Setting
from evaluation.tasks import ContractTask, SqlTask, Task
from feedback.events import Message
from tools import documents, knowledge, sql
from tools.documents.ingest import ingest
from tools.documents.library import Library
from tools.knowledge import Knowledge, schema_cards
from tools.tool import Tool
from tools.toolbox import Toolbox, ToolPolicy

_KEPT = 256  # what is known of so many databases, and the tools of so many contracts
_OPEN = 4  # databases that stay open while nobody asks them: each has processes of its own
_TENANT = "evaluation"


class WorkbenchError(EvaluationError):
    """Tasks that this agent, or this deployment, cannot be given. The message says why."""


@dataclass(frozen=True)
class Deployed:
    """What tasks are about that name no database: the deployment's own, and what it knows of them."""

    knowledge: Knowledge
    database: Path


@dataclass
class _Open:
    source: sql.Source
    tools: Toolbox
    users: int = 0


class Workbench:
    """Gives tasks to one agent. Made by `opened`."""

    def __init__(self, agent: Agent, deployed: Deployed | None, library: Library, mcp: Toolbox) -> None:
        self._agent = agent
        self._deployed = deployed
        self._library = library
        self._mcp = mcp
        self._nothing = Knowledge([])
        self._knowledge = lru_cache(maxsize=_KEPT)(_tables)
        self._contract = lru_cache(maxsize=_KEPT)(self._contract_tools)
        self._sources: OrderedDict[Path, _Open] = OrderedDict()

    @asynccontextmanager
    async def given(self, task: Task) -> AsyncIterator[Setting]:
        """What the agent works with, for as long as the block lasts."""
        messages = (Message(role="user", content=task.asked),)
        with_tools = self._agent.limits.turns > 1
        if isinstance(task, ContractTask):
            own = self._agent.tools.documents
            tools = await asyncio.to_thread(self._contract, task.path) if own and with_tools else Toolbox({})
            yield Setting(self._agent, messages, self._nothing, self._all(tools, self._nothing))
            return
        known, database = await self._about(task)
        if not with_tools:
            yield Setting(self._agent, messages, known)
            return
        async with self._asked(database) as tools:
            yield Setting(self._agent, messages, known, self._all(tools, known))

    def _all(self, own: Toolbox, known: Knowledge) -> Toolbox | None:
        """With the task's own tools those that search what the prompt is filled from, and those of MCP servers."""
        if self._agent.limits.turns == 1:
            return None
        section = self._agent.tools.knowledge
        searched = Toolbox({}) if section is None else _box(knowledge.tools(known), section)
        return Toolbox.of(own, searched, self._mcp)

    async def _about(self, task: SqlTask) -> tuple[Knowledge, Path]:
        if task.databases:
            return await asyncio.to_thread(self._knowledge, task.databases[0]), task.databases[0]
        assert self._deployed is not None, "whoever opens a workbench knows the tasks"
        return self._deployed.knowledge, self._deployed.database

    @asynccontextmanager
    async def _asked(self, database: Path) -> AsyncIterator[Toolbox]:
        """The tools of a database. Of those that nobody uses, the ones that were used last stay open."""
        section = self._agent.tools.sql
        if section is None:
            yield Toolbox({})
            return
        if database not in self._sources:
            source = sql.Source(database.stem, sql.DatabaseOptions(url=f"sqlite:///{database}"))
            self._sources[database] = _Open(source, _box(sql.tools(source), section))
        held = self._sources[database]
        self._sources.move_to_end(database)
        held.users += 1
        try:
            yield held.tools
        finally:
            held.users -= 1
            # Looked up anew each time: while one is closed, another may be asked.
            while len(idle := [path for path, one in self._sources.items() if not one.users]) > _OPEN:
                await self._sources.pop(idle[0]).source.close()

    def _contract_tools(self, path: Path) -> Toolbox:
        section = self._agent.tools.documents
        assert section is not None, "see given"
        entry = self._library.add(ingest(path), _TENANT)
        check = documents.citations(self._library, entry.id, _TENANT)
        return Toolbox.of(
            _box(documents.tools(self._library, entry.id, _TENANT), section), Toolbox({}, [check])
        )

    async def close(self) -> None:
        """End the processes of all databases."""
        while self._sources:
            _, held = self._sources.popitem()
            await held.source.close()


@asynccontextmanager
async def opened(
    agent: Agent, deployed: Deployed | None, library: Library, mcp: Toolbox | None = None
) -> AsyncIterator[Workbench]:
    """The workbench of one agent. `deployed` is needed for tasks that name no database, `library` keeps the contracts,
    `mcp` has the tools of MCP servers.
    """
    workbench = Workbench(agent, deployed, library, mcp or Toolbox({}))
    try:
        yield workbench
    finally:
        await workbench.close()


def _box(tools: list[Tool], section: ToolSource) -> Toolbox:
    policy = ToolPolicy(seconds=section.seconds, attempts=section.attempts)
    offered = [tool for tool in tools if section.offer is None or tool.name in section.offer]
    return Toolbox({tool.name: (tool, policy) for tool in offered})


def _tables(database: Path) -> Knowledge:
    """A card for each table of an SQLite database."""
    engine = sqlalchemy.create_engine(f"sqlite:///file:{database}?mode=ro&uri=true")
    try:
        return Knowledge(schema_cards(sqlalchemy.inspect(engine)))
    finally:
        engine.dispose()
