"""Whether one result holds another: the columns of the gold among those of the answer, in any order, under any name.

That extra columns do no harm is the idea of defog's sql-eval (https://github.com/defog-ai/sql-eval); the rule is ours:

- both have equally many rows;
- each column of the gold is matched with a column of the answer of its own, so that the rows, cut down to these
  columns, are the gold's rows, each as often; in the gold's order where `ordered`;
- numbers are equal when they are so rounded to 4 decimals (3 equals 3.0), texts when they are the same.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal

_TRIES = 10_000  # assignments of columns that are looked at; beyond, columns that look alike are too many

Rows = Sequence[Sequence[object]]


def holds(answer: Rows, gold: Rows, *, ordered: bool) -> bool:
    """Whether `answer` returns what `gold` does."""
    if len(answer) != len(gold):
        return False
    if not gold:
        return True
    theirs, wanted = _columns(answer), _columns(gold)
    if len(theirs) < len(wanted):
        return False
    keys = [_key(column, ordered=ordered) for column in theirs]
    candidates = [
        [index for index, key in enumerate(keys) if key == _key(column, ordered=ordered)] for column in wanted
    ]
    if ordered:  # equal columns in equal order: the rows are equal
        return _distinct(candidates)
    return _assigned(theirs, Counter(zip(*wanted, strict=True)), candidates)


def _distinct(candidates: list[list[int]]) -> bool:
    """Whether each has a candidate of its own. Candidates are equal or disjoint, for their columns are equal."""
    needed = Counter(tuple(found) for found in candidates)
    return all(len(found) >= n for found, n in needed.items())


def _assigned(
    theirs: list[tuple[str, ...]], wanted: Counter[tuple[str, ...]], candidates: list[list[int]]
) -> bool:
    tries = 0
    open_paths: list[tuple[int, ...]] = [()]
    while open_paths and tries < _TRIES:
        path = open_paths.pop()
        if len(path) == len(candidates):
            tries += 1
            if Counter(zip(*(theirs[index] for index in path), strict=True)) == wanted:
                return True
            continue
        open_paths += [(*path, index) for index in reversed(candidates[len(path)]) if index not in path]
    return False


def _columns(rows: Rows) -> list[tuple[str, ...]]:
    return [tuple(cell(value) for value in column) for column in zip(*rows, strict=True)]


def _key(column: tuple[str, ...], *, ordered: bool) -> tuple[str, ...]:
    return column if ordered else tuple(sorted(column))


def cell(value: object) -> str:
    """A text that is equal for equal values."""
    if isinstance(value, int):  # not by way of float, which not every integer has
        return f"n{int(value)}.0000"
    if isinstance(value, float | Decimal):
        return "n" + f"{value:.4f}".replace("-0.0000", "0.0000")
    if isinstance(value, date | time):
        return f"s{value.isoformat()}"
    return "null" if value is None else f"s{value}"
