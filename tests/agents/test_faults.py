"""Faults of all kinds in a tenth of all calls and more: every episode ends in an answer, or in an error with a code."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from agents.loop import EpisodeError, Finished, run
from agents.manifest import Agent
from agents.model import ModelError
from agents.segments import segments
from feedback.events import Message, ModelCall, Sampling, ToolCall
from tests.agents.talking import ANSWER, Talking, Turn, toolbox
from tools.errors import ToolError, ToolUnavailableError
from tools.knowledge import Knowledge

EPISODES = 100
ASKED = (Message(role="user", content="What do the claims cost?"),)
CODES = {"tool_unavailable", "tool_failed", "upstream_unavailable", "context_length_exceeded"}


class Unsteady:
    """A tool that fails in half of its calls, in every way in which one can."""

    description = "Now and then."
    parameters: Mapping[str, Any] = {"properties": {"of": {"type": "string"}}}

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.running = 0

    async def call(self, arguments: Mapping[str, Any]) -> str:
        self.running += 1
        try:
            return await self._answer()
        finally:
            self.running -= 1

    async def _answer(self) -> str:
        faults: list[Exception | float | None] = [
            ToolError("no such column"),
            ToolUnavailableError("the pool is full"),
            ConnectionResetError(),
            sqlite3.OperationalError("database is locked"),
            30.0,
            *[None] * 5,
        ]
        fault = self._chance.choice(faults)
        if isinstance(fault, Exception):
            raise fault
        await asyncio.sleep(fault or 0)
        return "r" * self._chance.randrange(2_000)


def turns(chance: random.Random) -> list[Turn]:
    def calls() -> Turn:
        written = [f'{{"of": "{chance.randrange(3)}"}}', '{"of": ', "[]", '{"off": 1}']
        names = ["look_up"] * 9 + ["look_out"]
        return [
            (chance.choice(names), chance.choices(written, [9, 1, 1, 1])[0])
            for _ in range(chance.randrange(1, 4))
        ]

    others: list[Turn] = ["Hm.", " ", ANSWER, ModelError("gone", status=502)]
    script = [chance.choices([calls(), *others], [12, 1, 1, 2, 1])[0] for _ in range(8)]
    return [*script, ANSWER]


async def test_whatever_fails_no_episode_crashes_and_every_failure_has_its_code(
    limited: Callable[..., Agent], knowledge: Knowledge
):
    chance = random.Random(6)
    ends: list[str] = []
    for _ in range(EPISODES):
        tool, model = Unsteady(chance), Talking(*turns(chance), window=6_000)
        tools = toolbox(tool, seconds=0.01, failures=3)
        episode = run(
            limited(turns=6, context_tokens=4_000),
            ASKED,
            model=model,
            knowledge=knowledge,
            sampling=Sampling(max_tokens=64),
            tools=tools,
        )
        try:
            finished = [step async for step in episode][-1]
            assert isinstance(finished, Finished)
            calls = finished.calls
            ends.append("answer")
        except EpisodeError as error:
            calls = error.calls
            ends.append(error.code)
        assert tool.running == 0
        made = [call for call in calls if isinstance(call, ModelCall)]
        assert [call for segment in segments(made) for call in segment.calls] == made
        used = [call for call in calls[1:] if isinstance(call, ToolCall)]
        asked = [asked for call in made for asked in call.tool_calls]
        assert len(used) == len(asked) or ends[-1].startswith("tool_")
        assert all((call.result is None) != (call.error is None) for call in used)
        assert json.loads(json.dumps([call.model_dump(mode="json") for call in calls]))
    assert set(ends) <= {"answer", *CODES}
    assert {"answer", "tool_unavailable", "tool_failed", "upstream_unavailable"} <= set(ends), (
        "the faults happened"
    )
