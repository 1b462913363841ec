"""Roll an agent out on tasks, through the loop that production runs."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.loop import EpisodeError, Finished, run
from agents.manifest import Agent
from agents.model import Model
from feedback.events import ModelCall, Sampling
from tools.knowledge import Knowledge
from trainer.tasks import Task

MAX_TOKENS = 32_768  # beyond every agent's own limit, which is the one that counts


@dataclass(frozen=True)
class Rollout:
    """What an agent did with one task. `call` is None when the episode was invalid (`error` says why): it is then
    never scored, least of all with 0.
    """

    task: Task
    call: ModelCall | None
    error: str | None = None


async def roll_out(
    agent: Agent,
    tasks: Sequence[Task],
    *,
    model: Model,
    knowledge: Knowledge,
    temperature: float,
    concurrency: int = 64,
    done: Callable[[], None] = lambda: None,
) -> list[Rollout]:
    """One episode per task, in the order of `tasks`. `done` is called as each ends."""
    gate = asyncio.Semaphore(concurrency)

    async def one(task: Task) -> Rollout:
        async with gate:
            rollout = await _episode(agent, task, model, knowledge, temperature)
        done()
        return rollout

    return list(await asyncio.gather(*(one(task) for task in tasks)))


async def _episode(
    agent: Agent, task: Task, model: Model, knowledge: Knowledge, temperature: float
) -> Rollout:
    sampling = Sampling(temperature=temperature, max_tokens=MAX_TOKENS)
    try:
        async for step in run(agent, task.messages, model=model, knowledge=knowledge, sampling=sampling):
            if isinstance(step, Finished):
                calls = [call for call in step.calls if isinstance(call, ModelCall)]
                return Rollout(task, calls[-1])
    except EpisodeError as error:
        return Rollout(task, None, str(error))
    return Rollout(task, None, "the episode ended without an answer")
