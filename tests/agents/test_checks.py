"""An answer that its tools can check: what is wrong goes back to the model, and never to who asked."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agents.loop import EpisodeError, Finished, run
from agents.manifest import Agent
from agents.model import Delta
from feedback.events import Message, Sampling
from tests.agents.talking import Answering, Talking, toolbox
from tools.knowledge import Knowledge
from tools.toolbox import Toolbox

ASKED = (Message(role="user", content="What do the claims cost?"),)
RIGHT, WRONG = '{"sql":"SELECT 1"}', '{"sql":"SELECT 2"}'


def only_one(answer: Mapping[str, Any]) -> str | None:
    return None if answer.get("sql") == "SELECT 1" else "It must be one."


async def steps(
    limited: Callable[..., Agent], knowledge: Knowledge, model: Talking, turns: int = 8
) -> tuple[Finished, str]:
    """How it ended, and what was shown to who asked."""
    tools = Toolbox.of(toolbox(Answering()), Toolbox({}, [only_one]))
    shown, finished = "", None
    async for step in run(
        limited(turns=turns), ASKED, model=model, knowledge=knowledge, sampling=Sampling(), tools=tools
    ):
        if isinstance(step, Delta) and step.final:
            shown += step.text
        if isinstance(step, Finished):
            finished = step
    assert finished is not None
    return finished, shown


async def test_a_wrong_answer_goes_back_with_what_is_wrong_and_only_the_right_one_is_shown(
    limited: Callable[..., Agent], knowledge: Knowledge
):
    model = Talking(WRONG, RIGHT)
    finished, shown = await steps(limited, knowledge, model)
    assert (finished.text, finished.fault, shown) == (RIGHT, None, RIGHT)
    said, told = model.requests[1].messages[-2:]
    assert said.text == WRONG
    assert told.text.startswith("It must be one.")


async def test_the_last_answer_may_be_corrected_once(limited: Callable[..., Agent], knowledge: Knowledge):
    finished, shown = await steps(limited, knowledge, Talking("12, I think", WRONG, RIGHT), turns=2)
    assert (finished.text, finished.fault, shown) == (RIGHT, None, RIGHT)


async def test_an_answer_that_stays_wrong_ends_with_its_fault_and_is_not_shown(
    limited: Callable[..., Agent], knowledge: Knowledge
):
    model = Talking(WRONG)
    finished, shown = await steps(limited, knowledge, model)
    assert (finished.text, finished.fault, shown) == (WRONG, "It must be one.", "")
    assert len(model.requests) == 5  # three strikes, then a last answer, and that one corrected


async def test_tokens_of_an_answer_that_was_checked_come_with_it(
    limited: Callable[..., Agent], knowledge: Knowledge
):
    finished, shown = await steps(limited, knowledge, Talking("12, I think", RIGHT), turns=2)
    assert finished.text == shown == RIGHT


async def test_a_check_that_takes_too_long_ends_with_the_time_of_the_episode(
    limited: Callable[..., Agent], knowledge: Knowledge
):
    over = threading.Event()
    tools = Toolbox.of(toolbox(Answering()), Toolbox({}, [lambda _: str(over.wait(60))]))
    episode = run(
        limited(turns=2, seconds=1),
        ASKED,
        model=Talking(RIGHT),
        knowledge=knowledge,
        sampling=Sampling(),
        tools=tools,
    )
    try:
        with pytest.raises(EpisodeError) as failed:
            _ = [step async for step in episode]
    finally:
        over.set()
    assert failed.value.code == "timeout"
