"""Agents to be evaluated: the shipped analyst, and two small ones with tools."""

from pathlib import Path

import pytest

from agents.manifest import Agent, Tools, ToolSource

_REVIEWED = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "answer": {"type": "string"},
                "quotes": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["answer", "quotes"],
        },
        {"type": "object", "properties": {"refusal": {"type": "string"}}, "required": ["refusal"]},
    ]
}


@pytest.fixture
def analyst(root: Path) -> Agent:
    return Agent.load(root / "agents" / "sql_analyst")


@pytest.fixture
def with_sql(analyst: Agent) -> Agent:
    limits = analyst.limits.model_copy(update={"turns": 3})
    return analyst.model_copy(update={"limits": limits, "tools": Tools(sql=ToolSource())})


@pytest.fixture
def reviewer(with_sql: Agent) -> Agent:
    tools = Tools(documents=ToolSource(offer=("select_pages", "search_text")))
    return with_sql.model_copy(
        update={"name": "reviewer", "tools": tools, "prompt": "Review.", "response_schema": _REVIEWED}
    )
