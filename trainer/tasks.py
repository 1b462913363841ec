"""A task: a question with a reference that an answer can be verified against."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from feedback.events import Message


class Task(BaseModel):
    """`reference` is `{"sql": …}`, `{"rows": [[…], …]}` or `{"refusal": …}`; `tags` are for reports only.

    `own`: the reference is what the base model answered by itself, and somebody confirmed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    messages: tuple[Message, ...]
    reference: dict[str, Any]
    own: bool = False
    tags: dict[str, str] = {}


class TaskFileError(Exception):
    """A task file that cannot be read; the message names file and line."""


def read(path: Path) -> list[Task]:
    """The tasks of a JSONL file. Raises `TaskFileError`."""
    tasks = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    tasks.append(Task.model_validate_json(line))
                except ValidationError as error:
                    raise TaskFileError(f"{path}:{number}: {error.errors()[0]['msg']}") from error
    except OSError as error:
        raise TaskFileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskFileError(f"{path}: not UTF-8: {error}") from error
    if not tasks:
        raise TaskFileError(f"{path}: no tasks in it")
    return tasks


def write(path: Path, tasks: Iterable[Task]) -> None:
    """Write a JSONL file, one task a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(task.model_dump(mode="json"), ensure_ascii=False) + "\n" for task in tasks)
    path.write_text(text, encoding="utf-8")
