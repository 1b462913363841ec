"""Whether a query answers a question: it is executed, and so are those that are held to be right.

A question with several accepted queries has several readings. An answer must agree with the same one on every database
of the task, or it would be right by accident on each.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from evaluation.scoring import answers
from evaluation.scoring.rows import Rows, holds
from evaluation.scoring.verdict import BadTaskError, Verdict
from evaluation.tasks import SqlTask
from tools.errors import ToolError
from tools.sql import Database

_SECONDS = 10.0  # of one query
_MAX_ROWS = 100_000
_CACHED = 4_096


class SqlScorer:
    """Scores answers. `deployed` are the databases of tasks that name none. Safe to be used by several threads."""

    def __init__(self, deployed: Sequence[Path] = ()) -> None:
        self._deployed = tuple(deployed)
        self._gold = lru_cache(maxsize=_CACHED)(_gold)

    def score(self, task: SqlTask, text: str) -> Verdict:
        """The verdict on the agent's last text. Raises `BadTaskError` where no accepted query can be evaluated."""
        databases = task.databases or self._deployed
        readings = self._readings(task, databases)
        empty = bool(readings) and not any(rows for reading in readings for rows in reading)
        answer = answers.read(text)
        if answer is None or not (answers.is_refusal(answer) or isinstance(answer.get("sql"), str)):
            return Verdict(outcome="malformed", note="neither a query nor a refusal", empty_gold=empty)
        sql = answer.get("sql")
        refused = not isinstance(sql, str)
        if not task.answerable:
            refused = refused or self._says_so(task, str(sql), databases)
            return Verdict(outcome="correct_refusal" if refused else "hallucination")
        if refused:
            return Verdict(outcome="wrong_refusal", empty_gold=empty)
        try:
            found = [_rows(database, str(sql)) for database in databases[: len(readings[0])]]
        except ToolError as error:
            return Verdict(outcome="sql_error", note=str(error), empty_gold=empty)
        right = any(
            all(holds(rows, gold, ordered=task.ordered) for rows, gold in zip(found, reading, strict=True))
            for reading in readings
        )
        return Verdict(outcome="correct" if right else "wrong", empty_gold=empty)

    def _readings(self, task: SqlTask, databases: Sequence[Path]) -> list[tuple[Rows, ...]]:
        """For each accepted query what it returns on each database; given rows were seen on the first alone."""
        if task.rows is not None:
            return [(task.rows,)]
        readings = [tuple(self._gold(database, sql) for database in databases) for sql in task.golds]
        good = [
            tuple(rows for rows in reading if rows is not None) for reading in readings if None not in reading
        ]
        if task.golds and not good:
            raise BadTaskError(
                f"no accepted query of {task.id} runs within {_SECONDS:g} s and {_MAX_ROWS} rows"
            )
        return good

    def _says_so(self, task: SqlTask, sql: str, databases: Sequence[Path]) -> bool:
        """Whether the query is the one that the task itself asks for where there is no answer."""
        said = [self._gold(databases[0], refusal) for refusal in task.refusals]
        found = self._gold(databases[0], sql) if said else None
        return found is not None and any(
            rows is not None and holds(found, rows, ordered=True) for rows in said
        )


def _gold(database: Path, sql: str) -> Rows | None:
    try:
        return _rows(database, sql)
    except ToolError:
        return None


def _rows(database: Path, sql: str) -> Rows:
    result = Database(database, max_rows=_MAX_ROWS, seconds=_SECONDS).query(sql)
    if result.truncated:
        raise ToolError(f"more than {_MAX_ROWS} rows")
    return result.rows
