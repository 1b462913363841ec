"""Evaluate the contenders of a run on held-out tasks: the base model, its best prompt, and every adapter named."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from agents.loop import format_answer
from feedback.events import Message
from feedback.policies import base_policy
from trainer.config import Contender, ContestConfig
from trainer.dataset import demonstrations
from trainer.digest import base_digest
from trainer.evaluate import evaluate
from trainer.policy import load_adapter, load_base
from trainer.reports import Report
from trainer.sampler import Sampler
from trainer.tasks import Task, read
from trainer.train import World, checkpoint_of

Emit = Callable[[dict[str, Any]], None]


def hold(config: ContestConfig, emit: Emit) -> dict[str, Report]:
    """Evaluate all contenders, one after the other, in this process."""
    world = World.open(config.trainer)
    tasks = read(config.tasks)
    reports = {}
    for contender in config.contenders:
        file = config.reports / f"{contender.name}.json"
        if not file.exists():
            _evaluate(world, contender, tasks, emit).save(file)
        reports[contender.name] = Report.load(file)
    return reports


def _evaluate(world: World, contender: Contender, tasks: Sequence[Task], emit: Emit) -> Report:
    config = world.config
    model: Any = load_base(config.base_model, world.device)
    policy = contender.policy or base_policy(world.agent.name, base_digest(config.base_model))
    if contender.policy is not None:
        model = load_adapter(model, checkpoint_of(config, contender.policy), trainable=False)
    stage, total, ended = f"evaluate {contender.name}", len(tasks), 0

    def done() -> None:
        nonlocal ended
        ended += 1
        emit({"stage": stage, "step": ended, "steps": total})

    return asyncio.run(
        evaluate(
            world.agent,
            tasks,
            contender=contender.name,
            model=Sampler(model, world.tokenizer, policy=policy),
            knowledge=world.knowledge,
            scorer=world.scorer,
            shots=worked_examples(world.tasks, contender.shots),
            done=done,
        )
    )


def worked_examples(tasks: Sequence[Task], number: int) -> list[Message]:
    """The first demonstrations as earlier turns: a refusal first (last, a small model copies it), then answers."""
    known = demonstrations(tasks)
    refusals = [task for task in known if "refusal" in task.reference][:1]
    answers = [task for task in known if "sql" in task.reference]
    chosen = [*refusals, *answers][:number]
    return [message for task in chosen for message in (*task.messages, _answer(task))]


def _answer(task: Task) -> Message:
    return Message(role="assistant", content=format_answer(task.reference))
