"""Ask an agent all tasks, several at once, through the loop that production runs."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass

from agents import loop
from agents.loop import EpisodeError, Finished
from agents.manifest import Agent
from agents.model import Model
from evaluation.episodes import Episode, Journal, steps
from evaluation.errors import EvaluationError
from evaluation.tasks import Task
from feedback.events import Call, Message, ModelCall, Sampling
from tools.knowledge import Knowledge
from tools.toolbox import Toolbox

MAX_TOKENS = 32_768  # beyond every agent's own limit, which is the one that counts
_OWN_FAULTS = frozenset({"context_length_exceeded", "content_policy_violation"})
_HOPELESS = 8  # episodes that are invalid, before any other, after which the rest need not be tried


class HopelessError(EvaluationError):
    """No episode was valid so far. The message says why the last one was not."""


@dataclass(frozen=True)
class Setting:
    """What an agent is given for one task. `pages_cut` is of a contract that did not fit as a whole."""

    agent: Agent
    messages: tuple[Message, ...]
    knowledge: Knowledge
    tools: Toolbox | None = None
    pages_cut: int = 0


Given = Callable[[Task], AbstractAsyncContextManager[Setting]]


async def run(
    tasks: Sequence[Task],
    journal: Journal,
    *,
    given: Given,
    model_of: Callable[[Task], Model],
    sampling: Sampling,
    concurrency: int,
    done: Callable[[Episode], None] = lambda _: None,
) -> None:
    """Ask what the journal holds no valid episode of; `done` is called as each ends.

    Cancelling leaves in the journal what has ended. Raises `HopelessError` when there is no sense in going on.
    """
    waiting = iter([task for task in tasks if not journal.is_done(task.id)])
    ended: list[Episode] = []

    async def work(waiting: Iterator[Task]) -> None:
        for task in waiting:
            episode = await _episode(task, given(task), model_of(task), sampling)
            journal.add(episode)
            ended.append(episode)
            done(episode)
            if len(ended) >= _HOPELESS and all(one.status == "invalid" for one in ended):
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work(waiting))
    if len(ended) >= _HOPELESS and all(one.status == "invalid" for one in ended):
        raise HopelessError(f"the first {len(ended)} episodes failed, the last one so: {ended[-1].error}")


async def _episode(
    task: Task, opening: AbstractAsyncContextManager[Setting], model: Model, sampling: Sampling
) -> Episode:
    started = time.perf_counter()
    calls: tuple[Call, ...] = ()
    cut = 0
    try:
        async with opening as setting:
            cut = setting.pages_cut
            started = time.perf_counter()
            ended = await _ended(setting, model, sampling)
        calls, found = ended.calls, {"status": "answered", "text": ended.text}
    except EpisodeError as error:
        status = "failed" if error.code in _OWN_FAULTS else "invalid"
        calls, found = error.calls, {"status": status, "error": str(error), "code": error.code}
    except Exception as error:  # noqa: BLE001  # a defect of a tool or a model is this episode's; the others go on
        found = {"status": "invalid", "error": f"{type(error).__name__}: {error}", "code": "defect"}
    asked = [call for call in calls if isinstance(call, ModelCall)]
    return Episode.model_validate(
        {
            **found,
            "task_id": task.id,
            "policy": model.policy,
            "steps": steps(calls),
            "turns": len(asked),
            "prompt_tokens": sum(call.tokens_read for call in asked),
            "completion_tokens": sum(call.tokens_written for call in asked),
            "seconds": time.perf_counter() - started,
            "pages_cut": cut,
        }
    )


async def _ended(setting: Setting, model: Model, sampling: Sampling) -> Finished:
    steps_taken = loop.run(
        setting.agent,
        setting.messages,
        model=model,
        knowledge=setting.knowledge,
        sampling=sampling,
        tools=setting.tools,
    )
    async with aclosing(steps_taken):  # type: ignore[type-var]  # an async generator, declared as its protocol
        async for step in steps_taken:
            if isinstance(step, Finished):
                return step
    raise EpisodeError("the episode ended without an answer", status=500, code="defect", calls=())
