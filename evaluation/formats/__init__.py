"""Task files in JSON Lines, each format known by its fields. What they name must lie in the file's own folder.

- `text2sql`: `id`, `question`, `db_path` (an SQLite file), `gold_sql`, and optionally `gold_sql_alternatives`,
  `evidence`, `ordered`, `answerable`, `category`, `db`, `source`. Every further field whose name has `db_path` in it
  names another instance of the database, on which an answer must be right as well.
- `contracts`: `id`, `question`, `contract` (its text is `text/CONTRACT.txt`, pages parted by form feeds), `answer`,
  `answer_kind`, `evidence` (each with `text`, `page`, `page_end`), `answerable`, and optionally `category`; the
  contracts' types stand in `contracts.jsonl` where there is one.
- `own`: Flywheel's own tasks (`trainer.tasks.Task`), about the databases of the deployment.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from evaluation.errors import EvaluationError
from evaluation.formats import contracts, own, text2sql
from evaluation.formats.inside import TaskFaultError
from evaluation.tasks import Task, TaskSet


class TaskFileError(EvaluationError):
    """A task file that cannot be used. The message names the file, the line and the fault."""


class _Format(NamedTuple):
    name: str
    fields: frozenset[str]  # by which it is known
    reader: Callable[[Path], Callable[[Mapping[str, Any]], Task]]


_FORMATS = (
    _Format("text2sql", text2sql.FIELDS, text2sql.reader),
    _Format("contracts", contracts.FIELDS, contracts.reader),
    _Format("own", own.FIELDS, own.reader),
)


def read(path: Path) -> TaskSet:
    """The tasks of a file, in its order. Raises `TaskFileError`."""
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8").split("\n")  # not splitlines: U+2028 may stand in a JSON text
    except OSError as error:
        raise TaskFileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskFileError(f"{path}: not UTF-8: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise TaskFileError(f"{path}: no tasks in it")
    known: _Format | None = None
    task_of: Callable[[Mapping[str, Any]], Task] | None = None
    tasks: dict[str, Task] = {}
    for number, line in numbered:
        try:
            row = _object(line)
            if known is None or task_of is None:
                known = _format(row)
                task_of = known.reader(path.parent)
            _add(tasks, task_of(row))
        except TaskFaultError as error:
            raise TaskFileError(f"{path}:{number}: {error}") from error
        except ValidationError as error:
            raise TaskFileError(f"{path}:{number}: {_fault(error)}") from error
    assert known is not None
    return TaskSet(path, known.name, hashlib.sha256(data).hexdigest(), tuple(tasks.values()))


def _add(tasks: dict[str, Task], task: Task) -> None:
    if task.id in tasks:
        raise TaskFaultError(f"the id {task.id} occurs a second time")
    tasks[task.id] = task


def chosen(task_set: TaskSet, *, limit: int | None, seed: int | None) -> tuple[Task, ...]:
    """The tasks that are asked: all, the first `limit`, or with a seed `limit` drawn at random, in the file's order."""
    tasks = task_set.tasks
    if seed is not None:
        order = list(range(len(tasks)))
        random.Random(seed).shuffle(order)
        return tuple(tasks[index] for index in sorted(order[:limit]))
    return tasks[:limit]


def _object(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskFaultError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise TaskFaultError(f"a JSON object is expected, not {type(row).__name__}")
    return row


def _format(row: Mapping[str, Any]) -> _Format:
    found = next((known for known in _FORMATS if known.fields <= row.keys()), None)
    if found is None:
        wanted = "; ".join(f"{known.name} has {', '.join(sorted(known.fields))}" for known in _FORMATS)
        raise TaskFaultError(f"no known format: {wanted}; here are {', '.join(sorted(row)) or 'no fields'}")
    return found


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"]
