"""Run an agent over held-out tasks and score what it answers. Any `Model` will do: in this process or served."""

import time
from collections.abc import Callable, Sequence

from agents.manifest import Agent
from agents.model import Model
from feedback.events import Message
from tools.knowledge import Knowledge
from trainer.reports import Report, TaskResult
from trainer.rewards import Scorer
from trainer.rollout import Rollout, roll_out
from trainer.tasks import Task


async def evaluate(
    agent: Agent,
    tasks: Sequence[Task],
    *,
    contender: str,
    model: Model,
    knowledge: Knowledge,
    scorer: Scorer,
    shots: Sequence[Message] = (),
    concurrency: int = 64,
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Greedy answers to all tasks. `shots` are worked examples put before each question, as earlier turns."""
    started = time.perf_counter()
    asked = [task.model_copy(update={"messages": (*shots, *task.messages)}) for task in tasks]
    rollouts = await roll_out(
        agent, asked, model=model, knowledge=knowledge, temperature=0.0, concurrency=concurrency, done=done
    )
    results = tuple(_result(rollout, scorer) for rollout in rollouts)
    return Report(
        contender=contender, policy=model.policy, seconds=time.perf_counter() - started, results=results
    )


def _result(rollout: Rollout, scorer: Scorer) -> TaskResult:
    task, call = rollout.task, rollout.call
    return TaskResult(
        task_id=task.id,
        tags=task.tags,
        answerable="refusal" not in task.reference,
        outcome=scorer.score(call.text, task.reference).outcome if call else None,
        text=call.text if call else rollout.error or "",
        tokens=len(call.completion_token_ids) if call else 0,
    )
