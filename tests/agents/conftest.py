"""The shipped agent, a small knowledge base, and a model that says what it is told to say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agents.manifest import Agent, Tools
from agents.model import Delta, ModelRequest
from feedback.events import ModelCall
from tests.contracts.samples import model_call
from tools.knowledge import Item, Knowledge

Script = str | Exception | float


class Scripted:
    """A `Model` that follows its script: text is streamed, a number is slept, an exception is raised."""

    policy = "sql-analyst@scripted"

    def __init__(self, *script: Script) -> None:
        self.script = script
        self.requests: list[ModelRequest] = []
        self.closed = 0

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        self.requests.append(request)
        text = ""
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, str):
                    text += step
                    yield Delta(step)
                else:
                    await asyncio.sleep(step)
            yield model_call(policy=self.policy, messages=request.messages, text=text)
        finally:
            self.closed += 1


@pytest.fixture
def agent(root: Path) -> Agent:
    """It answers alike with tools and without them."""
    shipped = Agent.load(root / "agents" / "sql_analyst")
    _, prompt = shipped.prompt.split("{% else %}")
    return shipped.model_copy(update={"tools": Tools(), "prompt": prompt.replace("{% endif %}", "", 1)})


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    return Knowledge(
        [
            Item("schemas", text="claims(claim_id, amount)", keywords="loss"),
            Item("schemas", text="vehicles(vehicle_id, make)", keywords="car"),
            Item("examples", question="How many claims?", answer='{"sql": "SELECT COUNT(*) FROM claims"}'),
            Item("heuristics", text="A loss is a claim.", keywords="claims"),
        ]
    )


@pytest.fixture
def limited(agent: Agent) -> Callable[..., Agent]:
    """The agent with other limits."""
    return lambda **limits: agent.model_copy(update={"limits": agent.limits.model_copy(update=limits)})
