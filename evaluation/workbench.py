"""What an agent works with on a task: the tables of the task's database in its prompt, and the tools of its manifest.

They are production's own tools, on the task's database or contract; each is made once and kept.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlalchemy

from agents.manifest import Agent
from evaluation.running import Setting
from evaluation.tasks import ContractTask, Task
from feedback.events import Message
from tools.knowledge import Item, Knowledge

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
        self._nothing = Knowledge([])

    def prepare(self, task: Task) -> Setting:
        """May block for a moment where the database or the contract is new."""
        message = Message(role="user", content=task.asked)
        if isinstance(task, ContractTask):
            return Setting(self._agent, (message,), self._nothing)
        if task.databases:
            return Setting(self._agent, (message,), self._knowledge(task.databases[0]))
        assert self._deployed is not None, "the caller knows its tasks"
        return Setting(self._agent, (message,), self._deployed.knowledge)


def _tables(database: Path) -> Knowledge:
    """A card for each table of an SQLite database."""
    engine = sqlalchemy.create_engine(f"sqlite:///file:{database}?mode=ro&uri=true")
    try:
        return Knowledge(_cards(sqlalchemy.inspect(engine)))
    finally:
        engine.dispose()


def _cards(inspector):
    return [
        Item("schemas", text=f"{t}({', '.join(c['name'] for c in inspector.get_columns(t))})")
        for t in inspector.get_table_names()
    ]
