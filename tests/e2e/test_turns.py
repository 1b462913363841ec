"""An episode of several turns on the real vLLM: its parser, its grammar, its chat template and its tokens."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from pydantic import BaseModel

from agents.acting import ToolStarted
from agents.loop import Finished, parse_answer, run
from agents.manifest import Agent
from agents.model import Delta, ModelRequest
from agents.segments import segments
from agents.turns import ANSWER_NOW
from agents.vllm import VllmModel
from feedback.events import Message, ModelCall, Sampling, ToolCall
from tests.conftest import ROOT
from tests.e2e.conftest import Live
from tools.knowledge import Knowledge, read
from tools.tool import FunctionTool
from tools.toolbox import Toolbox, ToolPolicy

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

ASKED = (Message(role="user", content="How many claims are open? Look at the table claims first."),)


class Table(BaseModel):
    table: str


async def describe(table: Table) -> str:
    return f"{table.table}(claim_id, status, amount)"


class Pushed(VllmModel):
    """The small model calls no tool by itself: it has to, in its first turn."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        if not any(message.role == "tool" for message in request.messages):
            request = replace(request, tool_choice="required")
        async for part in super().stream(request):
            yield part


class Wordy(VllmModel):
    """The small model now and then begins a tool call that it does not end: here it writes text only."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        async for part in super().stream(replace(request, tool_choice="none")):
            yield part


async def test_a_real_model_calls_a_tool_and_then_answers_in_the_agents_form(live: Live) -> None:
    agent = Agent.load(ROOT / "agents" / "sql_analyst")
    agent = agent.model_copy(update={"limits": agent.limits.model_copy(update={"turns": 2})})
    tool = FunctionTool("describe_table", "Says which columns a table has.", Table, describe)
    name = live.settings.vllm.served_name
    async with aiohttp.ClientSession() as session:
        steps = [
            step
            async for step in run(
                agent,
                ASKED,
                model=Pushed(session, live.system.vllm_url, name=name, policy=name),
                knowledge=Knowledge(read(live.settings.knowledge.file)),
                sampling=Sampling(),
                tools=Toolbox({tool.name: (tool, ToolPolicy())}),
            )
        ]
    finished = steps[-1]
    assert isinstance(finished, Finished)
    _, first, *used, last = finished.calls
    assert isinstance(first, ModelCall) and isinstance(last, ModelCall)
    assert all(isinstance(call, ToolCall) for call in used)

    started = [step for step in steps if isinstance(step, ToolStarted)]
    assert [call["id"] for call in first.tool_calls] == [step.call_id for step in started]
    assert [call["function"]["arguments"] for call in first.tool_calls] == [
        step.arguments for step in started
    ]
    assert len(used) == len(started) >= 1

    assert last.parameters["tool_choice"] == "none"
    assert last.messages[-1].text == ANSWER_NOW
    assert parse_answer(finished.text) is not None or finished.finish_reason == "length"
    final = [step for step in steps if isinstance(step, Delta) and step.final]
    assert "".join(step.text for step in final) == finished.text

    for call in (first, last):  # no token is lost that the parser kept to itself
        assert len(call.completion_token_ids) == len(call.logprobs) == len(call.tokens) > 0
    assert "<tool_call>" in "".join(first.tokens)
    assert [call for segment in segments([first, last]) for call in segment.calls] == [first, last]


async def test_where_the_model_wrote_text_the_next_prompt_goes_on_from_its_tokens(live: Live) -> None:
    """Of a tool call that is not certain: a grammar may spell it in other tokens than the tokenizer does."""
    agent = Agent.load(ROOT / "agents" / "sql_analyst")
    agent = agent.model_copy(update={"limits": agent.limits.model_copy(update={"turns": 4, "max_tokens": 8})})
    tool = FunctionTool("describe_table", "Says which columns a table has.", Table, describe)
    name = live.settings.vllm.served_name
    async with aiohttp.ClientSession() as session:
        model = Wordy(session, live.system.vllm_url, name=name, policy=name)
        *_, finished = [
            step
            async for step in run(
                agent,
                ASKED,
                model=model,
                knowledge=Knowledge(read(live.settings.knowledge.file)),
                sampling=Sampling(),
                tools=Toolbox({tool.name: (tool, ToolPolicy())}),
            )
        ]
    assert isinstance(finished, Finished)
    calls = [call for call in finished.calls if isinstance(call, ModelCall)]
    assert len(calls) == 2
    (segment,) = segments(calls)
    assert sum(segment.sampled) == sum(len(call.completion_token_ids) for call in calls)
