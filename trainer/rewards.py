"""What an answer is worth: does it do what the reference does?

Verifiable, so nobody can be talked round: SQL is executed, its rows are compared. A refusal is worth something only
where the question has no answer, so that refusing is no way out of a hard question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from agents.loop import parse_answer
from tools.errors import ToolError
from tools.sql import Database, Result, is_ordered, same_rows

Outcome = Literal[
    "correct",  # the rows of the reference, on every database
    "correct_refusal",  # refused what cannot be answered
    "wrong_rows",  # runs, and answers something else
    "sql_error",  # does not run
    "wrong_refusal",  # refused what can be answered
    "hallucination",  # answered what cannot be answered
    "malformed",  # not an answer in the agent's form
]

FORMED = 0.1  # a small slope from "does not run" to "runs"; far below what being right is worth


class BadReferenceError(Exception):
    """A reference that does not evaluate: the episode is invalid and must not be scored."""


@dataclass(frozen=True)
class Score:
    """`correct` is what is reported; `reward` is what is learnt from, in 0 … 1 + FORMED."""

    outcome: Outcome

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.outcome in ("correct", "correct_refusal")

    @property
    def reward(self) -> float:
        """The scalar reward."""
        # A wrong refusal is worth what a wrong answer is: were it worth less, each hard question would teach to answer.
        formed = self.outcome in ("correct", "wrong_rows", "correct_refusal", "wrong_refusal")
        return float(self.correct) + FORMED * formed


class Scorer:
    """Scores answers against references on one or more instances of a database, the first being production."""

    def __init__(self, databases: Sequence[Database]) -> None:
        self._databases = tuple(databases)
        self._run = lru_cache(maxsize=4_096)(self._execute)
        self._expected_of_sql = lru_cache(maxsize=4_096)(self._execute_reference)

    def _execute(self, index: int, sql: str) -> Result | None:
        try:
            return self._databases[index].query(sql)
        except ToolError:
            return None

    def score(self, text: str, reference: dict[str, Any]) -> Score:
        """Score the text that a model answered. Raises `BadReferenceError` when the reference itself does not run."""
        answer = parse_answer(text) or {}
        sql, refused = answer.get("sql"), "refusal" in answer
        if not refused and not isinstance(sql, str):
            return Score("malformed")
        if "refusal" in reference:
            return Score("correct_refusal" if refused else "hallucination")
        if refused:
            return Score("wrong_refusal")
        assert isinstance(sql, str)
        return self._compare(sql, reference)

    def _compare(self, sql: str, reference: dict[str, Any]) -> Score:
        for index, (expected, ordered) in enumerate(self.expected(reference)):
            result = self._run(index, sql)
            if result is None:
                return Score("sql_error")
            if result.truncated or not same_rows(result.rows, expected, ordered=ordered):
                return Score("wrong_rows")
        return Score("correct")

    def expected(self, reference: dict[str, Any]) -> list[tuple[Sequence[Sequence[object]], bool]]:
        """Rows, and whether their order counts, that the reference stands for on each database it speaks of.

        A reference of rows was seen on production and speaks of that alone.
        """
        if "rows" in reference:
            return [(reference["rows"], False)]
        sql = reference.get("sql")
        if not isinstance(sql, str):
            raise BadReferenceError(f"a reference needs sql, rows or refusal, not {sorted(reference)}")
        return self._expected_of_sql(sql)

    def _execute_reference(self, sql: str) -> list[tuple[Sequence[Sequence[object]], bool]]:
        results = [self._run(index, sql) for index in range(len(self._databases))]
        if any(result is None or result.truncated for result in results):
            raise BadReferenceError(f"the reference does not run within the limits: {sql}")
        return [(result.rows, is_ordered(sql)) for result in results if result is not None]
