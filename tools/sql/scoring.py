"""Run one read-only SELECT on a SQLite database, within limits, and compare results.

Three fences, each enough by itself: sqlglot admits one SELECT statement, the connection is opened read-only, and
SQLite's own authorizer (https://sqlite.org/c3ref/set_authorizer.html) admits reading and built-in functions only.
"""

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlglot
from sqlglot import expressions as exp

from tools.errors import ToolError

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = {
    "load_extension",
    "readfile",
    "writefile",
    "edit",
    "fts3_tokenizer",
    "randomblob",
    "zeroblob",
    "printf",  # "%.*c" takes its width as an argument and fills it without looking at the clock
    "format",
}
_PROGRESS_INSTRUCTIONS = 2_000  # how often SQLite asks whether the time is up
_CELL_BYTES = 100_000

Scalar = str | int | float | bytes | None
Row = tuple[Scalar, ...]


@dataclass(frozen=True)
class Result:
    """The rows that a query returned; `truncated` when there were more than the limit."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    truncated: bool


class Database:
    """One SQLite file, read-only. Safe to share between threads: every query opens its own connection."""

    def __init__(self, path: Path, *, max_rows: int = 1_000, seconds: float = 2.0) -> None:
        self.path = path
        self.max_rows = max_rows
        self.seconds = seconds
        if not path.is_file():
            raise FileNotFoundError(f"no database at {path}: run `flywheel setup`, or set [sql] databases")

    def query(self, sql: str) -> Result:
        """Run `sql`. Raises `ToolError` when it is not one SELECT, is wrong, or passes a limit."""
        statement = parse_select(sql)
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _CELL_BYTES)
            connection.set_authorizer(_authorize)
            deadline = time.monotonic() + self.seconds
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_INSTRUCTIONS)
            try:
                cursor = connection.execute(statement)
                rows = cursor.fetchmany(self.max_rows + 1)
            except (sqlite3.Error, UnicodeEncodeError) as error:  # half a surrogate pair comes out of JSON
                reason = str(error)
                if reason == "interrupted":
                    reason = f"the query ran longer than {self.seconds:g} s"
                raise ToolError(f"SQL error: {reason}") from error
        columns = tuple(column[0] for column in cursor.description)
        return Result(columns, tuple(rows[: self.max_rows]), len(rows) > self.max_rows)


def parse_select(sql: str) -> str:
    """The statement to run, regenerated from the parsed tree. Raises `ToolError` unless it is exactly one SELECT."""
    try:
        statements = [tree for tree in sqlglot.parse(sql, dialect="sqlite") if tree is not None]
        if len(statements) != 1 or not isinstance(statements[0], exp.Query):
            raise ToolError("only one SELECT statement is allowed")
        return statements[0].sql(dialect="sqlite")
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        detail = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
        raise ToolError(f"not valid SQL: {detail[0] if detail else 'it nests too deeply'}") from error


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_READ and (first or "").startswith("sqlite_"):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def is_ordered(sql: str) -> bool:
    """Whether the query asks for an order of its rows (ORDER BY at its top level)."""
    return _tree(parse_select(sql)).args.get("order") is not None


@lru_cache(maxsize=1_024)
def _tree(sql: str) -> exp.Expr:
    return sqlglot.parse_one(sql, dialect="sqlite")


def canonical(rows: Iterable[Sequence[object]], *, ordered: bool = False) -> str:
    """A text that is equal for equal results: numbers rounded to 4 decimals, rows sorted unless their order counts."""
    lines = ["\x1f".join(_cell(value) for value in row) for row in rows]
    return "\x1e".join(lines if ordered else sorted(lines))


def same_rows(
    left: Iterable[Sequence[object]], right: Iterable[Sequence[object]], *, ordered: bool = False
) -> bool:
    """Execution match: the same rows, as often; in the same order only where `ordered`."""
    if ordered:
        return canonical(left, ordered=True) == canonical(right, ordered=True)
    return Counter(canonical([row]) for row in left) == Counter(canonical([row]) for row in right)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"n{int(value)}.0000"  # not by way of float, which not every integer has
    if isinstance(value, float):
        return "n" + f"{value:.4f}".replace("-0.0000", "0.0000")
    return "null" if value is None else f"s{value}"
