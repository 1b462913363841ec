"""What an agent works with on a task: the tables of the task's database in its prompt, and the tools of its manifest.

They are production's own tools, on the task's database or contract; each is made once and kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlalchemy

from agents.manifest import Agent, ToolSource
from evaluation.running import Setting
from evaluation.tasks import ContractTask, SqlTask, Task
from feedback.events import Message
from tools.knowledge import Knowledge, schema_cards
from tools.tool import Tool
from tools.toolbox import Toolbox, ToolPolicy

_KEPT = 256  # databases and contracts


class WorkbenchError(Exception):
    """Tasks that this agent, or this deployment, cannot be given. The message says why."""


@dataclass(frozen=True)
class Deployed:
    """What tasks are about that name no database: the deployment's own, and what it knows of them."""

    knowledge: Knowledge
    databases: tuple[Path, ...]


class Workbench:
    """Prepares tasks for one agent. Safe to be used by several threads, though two may make the same thing at once."""

    def __init__(self, agent: Agent, deployed: Deployed | None = None) -> None:
        """`deployed` is needed for tasks that name no database. Raises `WorkbenchError` where the agent has tools that no task can give it."""
        if agent.tools.mcp:
            raise WorkbenchError(f"{agent.name} has tools of MCP servers, which no task set can stand in for")
        self._agent = agent
        self._deployed = deployed
        self._knowledge = lru_cache(maxsize=_KEPT)(_tables)
        self._sql = lru_cache(maxsize=_KEPT)(self._sql_tools)

    def prepare(self, task: Task) -> Setting:
        """May block for a moment where the database or the contract is new."""
        message = Message(role="user", content=task.asked)
        if isinstance(task, SqlTask):
            knowledge = self._knowledge(task.databases[0]) if task.databases else self._deployed.knowledge
        return Setting(self._agent, (message,), knowledge, self._tools(task))


def _tables(database: Path) -> Knowledge:
    """A card for each table of an SQLite database."""
    engine = sqlalchemy.create_engine(f"sqlite:///file:{database}?mode=ro&uri=true")
    try:
        return Knowledge(schema_cards(sqlalchemy.inspect(engine)))
    finally:
        engine.dispose()
