"""Rows as a model reads them: few tokens, and nothing that can be taken for something else.

A table with one line of names and types, and a line for each row, cells parted by ` | `. JSON lines would say the names
again in each row; a table padded to columns pays for blanks. The types are said once, so that only a text that could be
taken for something else stands in quotes: an empty one, NULL as a word, one with line ends or bars in it.
"""

import json
from collections.abc import Iterable, Sequence

from tools.content import as_content
from tools.sql.engines import Answer, Cell

_NEEDS_QUOTES = frozenset("|\n\r\t\"")


def table(answer: Answer, *, source: str, shown: int, max_rows: int, max_cell: int) -> str:
    """The answer for a model: how many rows there are, then the first `shown` of them, fenced as content."""
    lines = [" | ".join(_heading(name, kind) for name, kind in zip(answer.columns, answer.types, strict=True))]
    mixed = [kind in ("mixed", "") for kind in answer.types]
    lines.extend(_line(row, mixed, max_cell) for row in answer.rows[:shown])
    return f"{_count(answer, shown, max_rows)}\n{as_content(chr(10).join(lines), source)}"


def _count(answer: Answer, shown: int, max_rows: int) -> str:
    read, first = len(answer.rows), min(shown, len(answer.rows))
    if answer.cut == "rows":
        return f"first {first} of more than {max_rows} rows: aggregate or add conditions to see all"
    if answer.cut == "bytes":
        return f"first {first} rows, and more that were too large to read: ask for fewer columns"
    if first < read:
        return f"first {first} of {read} rows"
    return "1 row" if read == 1 else f"{read} rows"


def _heading(name: str, kind: str) -> str:
    plain = _text(name, always=False, max_cell=100)
    return f"{plain} ({kind})" if kind and kind != "mixed" else plain


def _line(row: Sequence[Cell], mixed: Iterable[bool], max_cell: int) -> str:
    return " | ".join(_cell(value, quoted, max_cell) for value, quoted in zip(row, mixed, strict=True))


def _cell(value: Cell, quoted: bool, max_cell: int) -> str:  # noqa: FBT001  # a column's property, passed on as it is
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.15g}"
        case int():
            return str(value)
    return _text(value, always=quoted, max_cell=max_cell)


def _text(value: str, *, always: bool, max_cell: int) -> str:
    cut = f"… ({len(value)} characters)" if len(value) > max_cell else ""
    kept = value[:max_cell]
    if always or not kept or kept != kept.strip() or kept.upper() == "NULL" or _NEEDS_QUOTES & set(kept):
        return json.dumps(kept, ensure_ascii=False) + cut
    return kept + cut
