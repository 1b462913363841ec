"""Between a model and its tools: who is told of which failure, and that nothing is waited for without end."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from tools.content import as_content
from tools.errors import ToolError, ToolUnavailableError
from tools.tool import FunctionTool, ToolSpec
from tools.toolbox import Toolbox, ToolPolicy

AT_ONCE = ToolPolicy(backoff_seconds=0.0)


class Scripted:
    """A tool that does one thing after another, and the last of them for ever: says, sleeps or raises it."""

    description = "Does what it is told."
    parameters: Mapping[str, Any] = {"properties": {"query": {"type": "string"}}}

    def __init__(self, *script: str | float | BaseException, name: str = "search") -> None:
        self.name = name
        self.script = list(script)
        self.calls: list[Mapping[str, Any]] = []
        self.cancelled = 0

    async def call(self, arguments: Mapping[str, Any]) -> str:
        self.calls.append(arguments)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BaseException):
            raise step
        if not isinstance(step, float):
            return step
        try:
            await asyncio.sleep(step)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "late"


def box(*tools: Scripted, policy: ToolPolicy = AT_ONCE) -> Toolbox:
    return Toolbox({tool.name: (tool, policy) for tool in tools})


async def test_a_call_that_goes_well_is_told_whole():
    tool = Scripted("3 rows")
    outcome = await box(tool).run("search", '{"query": "a"}')
    assert (outcome.name, outcome.arguments, outcome.result) == ("search", {"query": "a"}, "3 rows")
    assert (outcome.error, outcome.fault, outcome.attempts) == (None, None, 1)
    assert outcome.latency >= 0 and outcome.started.tzinfo is not None
    assert tool.calls == [{"query": "a"}]


def test_the_model_is_told_of_every_tool():
    assert box(Scripted("x"), Scripted("x", name="list")).specs == (
        ToolSpec("search", Scripted.description, Scripted.parameters),
        ToolSpec("list", Scripted.description, Scripted.parameters),
    )


async def test_a_tool_that_is_not_there_is_answered_with_those_that_are():
    outcome = await box(Scripted("x")).run("serach", "{}")
    assert outcome.error == "there is no tool serach: did you mean search?"
    assert (await Toolbox({}).run("search", "{}")).error == "there is no tool search: there are none"


async def test_malformed_arguments_are_answered_and_reach_no_tool():
    tool = Scripted("x")
    outcome = await box(tool).run("search", '{"query": ')
    assert outcome.error is not None and "not JSON" in outcome.error
    assert (outcome.arguments, outcome.fault, tool.calls) == ({}, None, [])


async def test_what_the_model_can_mend_is_told_to_it_and_not_tried_again():
    tool = Scripted(ToolError("no such column: nmae; did you mean name?"), "x")
    outcome = await box(tool).run("search", "{}")
    assert outcome.error == "no such column: nmae; did you mean name?"
    assert (outcome.fault, outcome.result, len(tool.calls)) == (None, None, 1)


async def test_arguments_of_the_wrong_type_are_told_with_what_is_wrong_with_each():
    class Query(BaseModel):
        limit: int

    async def search(query: Query) -> str:
        return str(query.limit)

    tool = FunctionTool("search", "Finds.", Query, search)
    outcome = await Toolbox({"search": (tool, AT_ONCE)}).run("search", '{"limit": "many"}')
    assert outcome.error is not None and "limit: Input should be a valid integer" in outcome.error
    assert (await Toolbox({"search": (tool, AT_ONCE)}).run("search", '{"limit": 3}')).result == "3"


async def test_a_tool_that_is_unavailable_is_tried_again():
    tool = Scripted(ToolUnavailableError("busy"), ToolUnavailableError("busy"), "3 rows")
    outcome = await box(tool, policy=ToolPolicy(attempts=3, backoff_seconds=0.0)).run("search", "{}")
    assert (outcome.result, outcome.attempts, outcome.fault) == ("3 rows", 3, None)


async def test_a_tool_that_stays_unavailable_is_nobodys_fault():
    tool = Scripted(ToolUnavailableError("the database does not answer"))
    outcome = await box(tool).run("search", "{}")
    assert (outcome.fault, outcome.error, outcome.attempts) == (
        "unavailable",
        "the database does not answer",
        2,
    )


async def test_a_defect_is_logged_and_told_without_its_words(caplog: pytest.LogCaptureFixture):
    tool = Scripted(ConnectionResetError("/secret/path"))
    with caplog.at_level(logging.ERROR):
        outcome = await box(tool).run("search", "{}")
    assert (outcome.fault, outcome.error) == ("defect", "a defect in it (ConnectionResetError)")
    assert len(tool.calls) == 1
    assert "/secret/path" in caplog.text


async def test_no_answer_in_time_is_told_to_the_model_and_not_tried_again():
    tool = Scripted(30.0)
    outcome = await box(tool, policy=ToolPolicy(seconds=0.02)).run("search", "{}")
    assert outcome.error == "search gave no answer within 0.02 s: ask for less"
    assert (outcome.fault, tool.cancelled, len(tool.calls)) == (None, 1, 1)


async def test_a_time_out_of_the_tools_own_is_a_defect_and_not_ours():
    outcome = await box(Scripted(TimeoutError())).run("search", "{}")
    assert outcome.fault == "defect"


@pytest.mark.parametrize("script", [(30.0,), (ToolUnavailableError("busy"), 30.0)])
async def test_when_the_time_of_all_is_over_the_tool_is_stopped(script: tuple[Any, ...]):
    tool = Scripted(*script)
    outcome = await box(tool).run("search", '{"query": "a"}', seconds=0.05)
    assert outcome.error == "search was stopped: the time for this request is running out"
    assert (outcome.fault, outcome.arguments, tool.cancelled) == (None, {"query": "a"}, 1)


async def test_pauses_between_attempts_end_with_the_time_of_all():
    policy = ToolPolicy(attempts=100, backoff_seconds=3_600)
    outcome = await box(Scripted(ToolUnavailableError("busy")), policy=policy).run(
        "search", "{}", seconds=0.05
    )
    assert outcome.error is not None and "stopped" in outcome.error


async def test_cancelling_reaches_the_tool():
    tool = Scripted(30.0)
    task = asyncio.create_task(box(tool).run("search", "{}"))
    while not tool.calls:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert tool.cancelled == 1


async def test_who_fails_again_and_again_is_left_alone_and_the_others_are_not():
    away, well = Scripted(ToolUnavailableError("away")), Scripted("x", name="list")
    tools = box(away, well, policy=ToolPolicy(attempts=1, failures=2, rest_seconds=3_600))
    for _ in range(2):
        await tools.run("search", "{}")
    outcome = await tools.run("search", "{}")
    assert len(away.calls) == 2
    assert outcome.fault == "unavailable"
    assert outcome.error is not None and "tried again in 3600 s" in outcome.error
    assert (await tools.run("list", "{}")).result == "x"


async def test_a_tool_that_is_left_alone_is_not_asked_for_again_at_once():
    away = Scripted(ToolUnavailableError("away"))
    tools = box(away, policy=ToolPolicy(attempts=9, backoff_seconds=0.0, failures=2, rest_seconds=3_600))
    assert (await tools.run("search", "{}")).attempts == 3
    assert len(away.calls) == 2


async def test_wrong_calls_never_close_a_tool():
    tool = Scripted(ToolError("no such table"))
    tools = box(tool, policy=ToolPolicy(failures=1, rest_seconds=3_600))
    for _ in range(3):
        assert (await tools.run("search", "{}")).error == "no such table"
    assert len(tool.calls) == 3


async def test_toolboxes_are_joined_with_their_breakers():
    away = Scripted(ToolUnavailableError("away"))
    kept = box(away, policy=ToolPolicy(attempts=1, failures=1, rest_seconds=3_600))
    await Toolbox.of(kept, box(Scripted("x", name="list"))).run("search", "{}")
    joined = Toolbox.of(kept, box(Scripted("y", name="read")))
    assert [spec.name for spec in joined.specs] == ["search", "read"]
    await joined.run("search", "{}")
    assert len(away.calls) == 1
    with pytest.raises(ValueError, match="two tools are called search"):
        Toolbox.of(kept, box(Scripted("z")))


async def test_a_result_that_is_too_long_loses_its_middle():
    tool = Scripted("a" * 300 + "b" * 100)
    outcome = await box(tool, policy=ToolPolicy(characters=200)).run("search", "{}")
    assert outcome.result == "a" * 150 + "\n[… 200 characters left out: ask for less …]\n" + "b" * 50


async def test_a_result_that_no_utf8_can_hold_is_made_to():
    assert (await box(Scripted("\ud800!")).run("search", "{}")).result == "?!"


async def test_a_tool_that_gives_no_text_is_a_defect():
    outcome = await box(Scripted({"rows": 3})).run("search", "{}")  # type: ignore[arg-type]  # against the types
    assert outcome.fault == "defect"


async def test_what_is_left_of_a_long_result_stays_inside_its_fence():
    fences = [as_content(letter * 80, letter) for letter in "abc"]
    for characters in range(40, 300):
        outcome = await box(Scripted("\n".join(fences)), policy=ToolPolicy(characters=characters)).run(
            "search", "{}"
        )
        inside = False
        for line in str(outcome.result).splitlines():
            inside = (inside or line.startswith("<content source=")) and line != "</content>"
            for letter in "abc":
                assert inside or letter * 3 not in line, outcome.result


async def test_a_tool_that_cancels_itself_is_a_defect_and_not_the_callers_wish():
    outcome = await box(Scripted(asyncio.CancelledError())).run("search", "{}")
    assert outcome.fault == "defect"
