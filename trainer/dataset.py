"""Curated samples as tasks to roll out again, and as demonstrations to imitate."""

from collections.abc import Sequence
from pathlib import Path

from feedback.policies import is_base
from feedback.samples import load
from trainer.tasks import Task

_OWN_REFUSALS = 0.15  # the base model's confirmed refusals that are imitated, for each other demonstration


class EmptyDatasetError(Exception):
    """Nothing to learn from; the message says what is missing."""


def from_samples(path: Path) -> list[Task]:
    """Every sample as a task, in the file's order. Raises `EmptyDatasetError` or `feedback.samples.DatasetError`."""
    tasks = [
        Task(
            id=sample.task_id,
            messages=sample.messages,
            reference=sample.reference,
            own=not sample.corrected and is_base(sample.policy),
        )
        for sample in load(path).samples
    ]
    if not demonstrations(tasks):
        raise EmptyDatasetError(
            f"{path}: no corrections in it that a model could imitate; collect some, then `flywheel curate`"
        )
    return tasks


def demonstrations(tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose reference is worth imitating: corrections, a better model's confirmed answers, some refusals.

    Rows say what is right, not how to say it. The queries that the base model gets right by itself are the easy ones,
    often copied from the examples in its prompt: to imitate them taught it to copy. Its refusals are needed, since few
    people correct with one, but only up to a share: with more of them the policy refuses what it could answer
    (docs/log.md has all of it). All are tasks to reward.
    """
    worth = [
        task for task in tasks if "rows" not in task.reference and not (task.own and "sql" in task.reference)
    ]
    own = [task for task in worth if task.own]
    room = int((len(worth) - len(own)) * _OWN_REFUSALS)
    left_out = {task.id for task in own[room:]}
    return [task for task in worth if task.id not in left_out]
