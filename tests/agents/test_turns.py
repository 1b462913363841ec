"""An episode of several turns: how it goes on, and that it ends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import pytest

from agents.acting import ToolStarted
from agents.conversation import LEFT_OUT
from agents.loop import EpisodeError, Finished, Step, run
from agents.manifest import Agent
from agents.model import Delta, ModelError
from agents.segments import segments
from agents.turns import ANSWER_NOW
from feedback.events import Message, ModelCall, Sampling, ToolCall
from tests.agents.talking import Answering, Talking, toolbox
from tools.errors import ToolUnavailableError
from tools.knowledge import Knowledge
from tools.toolbox import Toolbox

ASKED = (Message(role="user", content="What do the claims cost?"),)
ANSWER = '{"sql":"SELECT 1"}'


def look_up(*of: str) -> list[tuple[str, str]]:
    return [("look_up", json.dumps({"of": one})) for one in of]


@pytest.fixture
def start(limited: Callable[..., Agent], knowledge: Knowledge) -> Callable[..., AsyncGenerator[Step, None]]:
    """An episode of up to eight turns, unless the limits say otherwise."""

    def started(
        model: Talking, tools: Toolbox | None, max_tokens: int | None = None, **limits: Any
    ) -> AsyncGenerator[Step, None]:
        steps = run(
            limited(**{"turns": 8, **limits}),
            ASKED,
            model=model,
            knowledge=knowledge,
            sampling=Sampling(max_tokens=max_tokens),
            tools=tools,
        )
        assert isinstance(steps, AsyncGenerator)
        return steps

    return started


async def ended(steps: AsyncGenerator[Step, None]) -> Finished:
    finished = [step async for step in steps][-1]
    assert isinstance(finished, Finished)
    return finished


def used(finished: Finished | EpisodeError) -> list[ToolCall]:
    """The tool calls, without the retrieval."""
    return [call for call in finished.calls[1:] if isinstance(call, ToolCall)]


async def test_the_model_calls_a_tool_reads_its_answer_and_answers(start: Any):
    model = Talking(look_up("claims"), ANSWER)
    steps = [step async for step in start(model, toolbox(Answering(claims="12 rows")))]
    _, begun, done, *pieces, answer, finished = steps
    assert begun == ToolStarted("call_1_0", "look_up", '{"of": "claims"}')
    assert isinstance(done, ToolCall)
    assert (done.name, done.arguments, done.result) == ("look_up", {"of": "claims"}, "12 rows")
    assert pieces == [Delta('{"sql":"SELECT', final=False), Delta('1"}', final=False)]
    assert isinstance(answer, Delta) and answer.final
    assert isinstance(finished, Finished)
    assert finished.calls == (steps[0], model.calls[0], done, model.calls[1])
    assert (finished.text, finished.finish_reason) == (ANSWER, "stop")
    first, second = model.requests
    assert second.messages[: len(first.messages)] == first.messages
    said, result = second.messages[len(first.messages) :]
    assert (said.role, said.tool_calls) == ("assistant", model.calls[0].tool_calls)
    assert (result.role, result.text, result.tool_call_id) == ("tool", "12 rows", "call_1_0")
    for request in model.requests:
        assert [tool.name for tool in request.tools] == ["look_up"]
        assert (request.tool_choice, request.response_schema) == ("auto", None)


@pytest.mark.parametrize("script", [(ANSWER,), (look_up("claims"), "Let me see.", ANSWER), ("No.", ANSWER)])
async def test_the_final_pieces_together_are_the_answer(start: Any, script: Any):
    steps = [step async for step in start(Talking(*script), toolbox(Answering(claims="12 rows")))]
    final = "".join(step.text for step in steps if isinstance(step, Delta) and step.final)
    assert final.replace(" ", "") == steps[-1].text.replace(" ", "")
    assert steps[-1].text == ANSWER


async def test_the_tokens_of_an_answer_come_with_it(start: Any):
    steps = [step async for step in start(Talking(ANSWER), toolbox(Answering()))]
    (answer,) = [step for step in steps if isinstance(step, Delta) and step.final]
    assert "".join(token.text for token in answer.tokens) == f"{ANSWER}<end>"


@pytest.mark.parametrize("tools", [None, Toolbox({})])
async def test_without_tools_there_is_one_turn(start: Any, tools: Toolbox | None):
    model = Talking(ANSWER)
    finished = await ended(start(model, tools))
    assert [call.kind for call in finished.calls] == ["tool", "model"]
    (request,) = model.requests
    assert (request.tools, request.tool_choice) == ((), "auto")
    assert request.response_schema is not None
    assert request.messages[1:] == ASKED


async def test_with_one_turn_no_tools_are_offered(start: Any):
    model = Talking(ANSWER)
    await ended(start(model, toolbox(Answering()), turns=1))
    assert model.requests[0].tools == ()
    assert model.requests[0].response_schema is not None


async def test_the_prompt_is_told_which_tools_there_are(
    start: Any, limited: Callable[..., Agent], knowledge: Knowledge
):
    agent = limited(turns=2).model_copy(
        update={"prompt": "{% if tools %}Use {{ tools | join(', ') }}.{% endif %}"}
    )
    model = Talking(ANSWER)
    tools = toolbox(Answering(), "look_up", "list")
    for offered in (tools, None):
        async for _ in run(
            agent, ASKED, model=model, knowledge=knowledge, sampling=Sampling(), tools=offered
        ):
            pass
    assert [request.messages[0].text for request in model.requests] == ["Use look_up, list.", ""]


async def test_text_in_another_form_is_asked_for_again_in_the_agents(start: Any):
    model = Talking("It is 12, I think.", ANSWER)
    finished = await ended(start(model, toolbox(Answering())))
    assert finished.text == ANSWER
    last = model.requests[-1]
    assert (last.tool_choice, [tool.name for tool in last.tools]) == ("none", ["look_up"])
    assert last.response_schema is not None
    assert [message.text for message in last.messages[-2:]] == ["It is 12, I think.", ANSWER_NOW]


@pytest.mark.parametrize(
    "text", ['{"sql": 5}', "[]", '{"sql":"a"} and more', "[" * 5_000], ids=lambda t: t[:20]
)
async def test_only_what_follows_the_schema_is_an_answer(start: Any, text: str):
    model = Talking(text, ANSWER)
    assert (await ended(start(model, toolbox(Answering())))).text == ANSWER
    assert len(model.requests) == 2


async def test_the_last_turn_is_for_the_answer(start: Any):
    model = Talking(look_up("a"), look_up("b"), look_up("c"))
    tool = Answering(a="1", b="2", c="3")
    finished = await ended(start(model, toolbox(tool), turns=3))
    assert tool.asked == ["a", "b"]
    assert [request.tool_choice for request in model.requests] == ["auto", "auto", "none"]
    assert finished.calls[-1] == model.calls[2]
    assert model.requests[-1].messages[-1] == Message(role="user", content=ANSWER_NOW)


async def test_the_answers_share_of_the_tokens_is_kept(start: Any):
    model = Talking(look_up("a"), ANSWER)
    written = len('<call>look_up {"of": "a"}</call><end>')
    await ended(start(model, toolbox(Answering(a="1")), max_tokens=64, total_tokens=written + 2 * 64 - 1))
    assert [request.tool_choice for request in model.requests] == ["auto", "none"]
    model = Talking(look_up("a"), ANSWER)
    await ended(start(model, toolbox(Answering(a="1")), max_tokens=64, total_tokens=written + 2 * 64))
    assert [request.tool_choice for request in model.requests] == ["auto", "auto"]


async def test_every_call_of_the_model_is_capped(start: Any):
    model = Talking(look_up("a"), ANSWER)
    await ended(start(model, toolbox(Answering(a="1")), max_tokens=40))
    assert [request.sampling.max_tokens for request in model.requests] == [40, 40]


class Slow:
    description = "Takes its time."
    parameters: Mapping[str, Any] = {"properties": {"of": {}}}

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.cancelled = 0

    async def call(self, arguments: Any) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(float(arguments["of"]))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return arguments["of"]


async def test_a_tool_leaves_the_model_time_to_answer(start: Any):
    tool, model = Slow(), Talking(look_up("30"), ANSWER)
    finished = await ended(start(model, toolbox(tool), seconds=0.4))
    (call,) = used(finished)
    assert call.error == "look_up was stopped: the time for this request is running out"
    assert (tool.cancelled, model.requests[-1].tool_choice) == (1, "none")


async def test_calls_of_one_turn_run_at_once_and_are_told_in_their_order(start: Any):
    tool, model = Slow(), Talking(look_up("0.03", "0.01", "0.02"), ANSWER)
    steps = [step async for step in start(model, toolbox(tool))]
    assert tool.most == 3
    started = [step for step in steps if isinstance(step, ToolStarted)]
    assert [json.loads(step.arguments)["of"] for step in started] == ["0.03", "0.01", "0.02"]
    assert [call.result for call in used(steps[-1])] == ["0.03", "0.01", "0.02"]
    results = [message for message in model.requests[1].messages if message.role == "tool"]
    assert [message.tool_call_id for message in results] == [step.call_id for step in started]
    assert [message.text for message in results] == ["0.03", "0.01", "0.02"]


async def test_a_malformed_call_is_answered_with_what_was_wrong(start: Any):
    tool = Answering(claims="12 rows")
    model = Talking(
        [("look_up", '{"of": '), ("look_out", "{}"), ("look_up", "[]")], look_up("claims"), ANSWER
    )
    finished = await ended(start(model, toolbox(tool)))
    errors = [call.error or "" for call in used(finished)]
    for error, said in zip(
        errors, ("not JSON", "did you mean look_up", "must be a JSON object", ""), strict=True
    ):
        assert said in error
    told = [message for message in model.requests[1].messages if message.role == "tool"]
    assert [message.text for message in told] == errors[:3]
    said_, *_ = [message for message in model.requests[1].messages if message.tool_calls]
    assert [call["function"]["arguments"] for call in said_.tool_calls] == ["{}", "{}", "{}"], (
        "else no template reads it"
    )
    assert tool.asked == ["claims"]


async def test_what_a_parser_kept_to_itself_is_asked_for_again(start: Any):
    model = Talking(" ", look_up("claims"), ANSWER)
    finished = await ended(start(model, toolbox(Answering(claims="12 rows"))))
    assert finished.text == ANSWER
    assert model.requests[1].messages[-1].role == "user"
    assert "neither an answer nor a tool call" in model.requests[1].messages[-1].text
    assert model.requests[1].tool_choice == "auto"


async def test_a_call_that_was_made_before_is_noticed_and_not_made_again(start: Any):
    tool = Answering(claims="12 rows")
    model = Talking(look_up("claims"), [("look_up", '{  "of":"claims" }')], look_up("cars"), ANSWER)
    finished = await ended(start(model, toolbox(tool)))
    assert tool.asked == ["claims", "cars"]
    assert [call.error for call in used(finished)] == [
        None,
        "this very call was made before, and its result is in this conversation: use it, or call differently",
        "there is no cars",
    ]


async def test_a_call_that_is_made_twice_in_one_turn_is_made_once(start: Any):
    tool = Answering(claims="12 rows")
    await ended(start(Talking(look_up("claims", "claims"), ANSWER), toolbox(tool)))
    assert tool.asked == ["claims"]


async def test_who_goes_on_repeating_itself_is_asked_for_its_answer(start: Any):
    model = Talking(*[look_up("claims")] * 4, ANSWER)
    finished = await ended(start(model, toolbox(Answering(claims="12 rows"))))
    assert [request.tool_choice for request in model.requests] == ["auto"] * 4 + ["none"]
    assert finished.text == ANSWER


async def test_a_tool_that_is_away_makes_the_episode_invalid(start: Any):
    model = Talking(look_up("claims"), ANSWER)
    away = Answering(claims=ToolUnavailableError("the database does not answer"))
    with pytest.raises(EpisodeError, match="look_up failed: the database does not answer") as failed:
        await ended(start(model, toolbox(away)))
    assert (failed.value.status, failed.value.code) == (503, "tool_unavailable")
    (call,) = used(failed.value)
    assert (call.attempts, call.error) == (2, "the database does not answer")
    assert failed.value.calls[1] == model.calls[0]


async def test_a_defect_in_a_tool_makes_the_episode_invalid_and_stops_the_others(start: Any):
    class Mixed(Slow):
        async def call(self, arguments: Any) -> str:
            return str(1 / 0) if arguments["of"] == "0" else await super().call(arguments)

    tool = Mixed()
    with pytest.raises(EpisodeError, match=r"a defect in it \(ZeroDivisionError\)") as failed:
        await ended(start(Talking(look_up("0", "30"), ANSWER), toolbox(tool)))
    assert (failed.value.status, failed.value.code) == (500, "tool_failed")
    assert len(used(failed.value)) == 1
    assert (tool.running, tool.cancelled) == (0, 1)


async def test_a_model_that_fails_in_a_later_turn_leaves_what_was_done(start: Any):
    model = Talking(look_up("claims"), ModelError("gone", status=502))
    with pytest.raises(EpisodeError) as failed:
        await ended(start(model, toolbox(Answering(claims="12 rows"))))
    assert [call.kind for call in failed.value.calls] == ["tool", "model", "tool"]


async def test_closing_early_stops_the_tools(start: Any):
    tool = Slow()
    steps = start(Talking(look_up("30", "40"), ANSWER), toolbox(tool))
    async for step in steps:
        if isinstance(step, ToolStarted):
            break
    await anext(steps)
    waiting = asyncio.create_task(anext(steps))
    while tool.running < 2:
        await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert (tool.running, tool.cancelled) == (0, 2)
    await steps.aclose()


async def test_cancelling_stops_the_tools(start: Any):
    tool = Slow()
    task = asyncio.create_task(ended(start(Talking(look_up("30", "40"), ANSWER), toolbox(tool))))
    while tool.running < 2:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert (tool.running, tool.cancelled) == (0, 2)


def room(model: Talking) -> list[int]:
    return [len(call.prompt_token_ids) for call in model.calls]


async def test_old_results_leave_the_prompt_when_it_outgrows_the_window(start: Any):
    long = "r" * 900
    tool = Answering(a=long, b=long, c=long)
    model = Talking(look_up("a"), look_up("b"), look_up("c"), ANSWER)
    finished = await ended(start(model, toolbox(tool), context_tokens=2_000))
    *_, before, last = model.requests
    assert [message.text for message in before.messages if message.role == "tool"] == [long, long]
    assert [message.text for message in last.messages if message.role == "tool"] == [LEFT_OUT, LEFT_OUT, long]
    assert last.messages[:2] == before.messages[:2]
    assert room(model)[-1] < room(model)[-2]
    calls = [call for call in finished.calls if isinstance(call, ModelCall)]
    assert [len(segment.calls) for segment in segments(calls)] == [3, 1], "split where it was compacted"


async def test_a_result_that_was_left_out_may_be_asked_for_again(start: Any):
    long = "r" * 900
    tool = Answering(a=long, b=long)
    model = Talking(look_up("a"), look_up("b"), look_up("a"), ANSWER)
    await ended(start(model, toolbox(tool), context_tokens=1_400))
    assert tool.asked == ["a", "b", "a"]


async def test_a_context_that_is_too_long_for_the_server_is_compacted_once(start: Any):
    long = "r" * 900
    model = Talking(look_up("a"), look_up("b"), ANSWER, window=1_800)
    finished = await ended(start(model, toolbox(Answering(a=long, b=long))))
    assert finished.text == ANSWER
    assert [message.text for message in model.requests[-1].messages if message.role == "tool"] == [
        LEFT_OUT,
        long,
    ]


async def test_what_cannot_be_compacted_is_an_error(start: Any):
    model = Talking(look_up("a"), ANSWER, window=900)
    with pytest.raises(EpisodeError) as failed:
        await ended(start(model, toolbox(Answering(a="r" * 900))))
    assert failed.value.code == "context_length_exceeded"


async def test_the_turns_of_an_episode_are_one_segment_where_the_template_writes_as_the_model_does(
    start: Any,
):
    model = Talking(look_up("a"), look_up("b"), "Hm.", ANSWER)
    finished = await ended(start(model, toolbox(Answering(a="1"))))
    calls = [call for call in finished.calls if isinstance(call, ModelCall)]
    (segment,) = segments(calls)
    assert segment.calls == tuple(model.calls)


async def test_an_episode_is_split_where_the_template_writes_otherwise(start: Any):
    model = Talking(look_up("a"), [("look_up", '{"of":"b"}')], ANSWER)
    finished = await ended(start(model, toolbox(Answering(a="1", b="2"))))
    calls = [call for call in finished.calls if isinstance(call, ModelCall)]
    assert [segment.calls for segment in segments(calls)] == [tuple(calls[:2]), tuple(calls[2:])]
