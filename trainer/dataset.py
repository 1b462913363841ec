"""Curated samples as tasks to roll out again, and as demonstrations to imitate."""

from collections.abc import Sequence
from pathlib import Path

from feedback.samples import load
from trainer.tasks import Task


class EmptyDatasetError(Exception):
    """Nothing to learn from; the message says what is missing."""


def from_samples(path: Path) -> list[Task]:
    """Every sample as a task, in the file's order. Raises `EmptyDatasetError` or `feedback.samples.DatasetError`."""
    tasks = [
        Task(id=sample.task_id, messages=sample.messages, reference=sample.reference)
        for sample in load(path).samples
    ]
    if not demonstrations(tasks):
        raise EmptyDatasetError(
            f"{path}: no corrected or confirmed answers in it; collect ratings, then `flywheel curate`"
        )
    return tasks


def demonstrations(tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose reference is an answer that can be imitated. Rows say what is right, not how to say it."""
    return [task for task in tasks if "rows" not in task.reference]
