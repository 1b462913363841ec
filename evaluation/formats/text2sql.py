"""Questions to SQLite databases with the queries that answer them."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evaluation.formats.inside import TaskFaultError, inside
from evaluation.tasks import SqlTask

FIELDS = frozenset({"id", "question", "db_path", "gold_sql"})
_DATABASE = "db_path"  # and every other field that has it in its name


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    db_path: str = Field(min_length=1)
    gold_sql: str | None
    gold_sql_alternatives: tuple[str, ...] | None = None
    gold_sql_original: str | None = None
    evidence: str | None = None
    ordered: bool | None = None
    answerable: bool | None = None
    category: str | None = None
    source: str | None = None
    db: str | None = None


def reader(folder: Path) -> Callable[[Mapping[str, Any]], SqlTask]:
    """What makes a task of a line of a file in `folder`; it raises `TaskFaultError` or pydantic's `ValidationError`."""

    @cache
    def database(name: str) -> Path:
        return inside(folder, name)

    def task(fields: Mapping[str, Any]) -> SqlTask:
        row = _Row.model_validate(fields)
        golds = (row.gold_sql, *(row.gold_sql_alternatives or ())) if row.gold_sql else ()
        answerable = bool(golds) if row.answerable is None else row.answerable
        if answerable != bool(golds):
            said = "answerable, but without gold_sql" if answerable else "unanswerable, but with gold_sql"
            raise TaskFaultError(f"{row.id} is {said}")
        # The words of some unanswerable questions ask for a query that says so; it is kept as the original one.
        told = row.gold_sql_original if not answerable else None
        return SqlTask(
            id=row.id,
            question=row.question,
            databases=tuple(database(name) for name in _databases(row)),
            golds=golds,
            refusals=(told,) if told else (),
            ordered=bool(row.ordered),
            evidence=row.evidence or "",
            groups={
                "category": row.category or row.source or "none",
                "database": row.db or row.db_path,
            },
            cluster=row.gold_sql or row.id,  # paraphrases have the same gold
        )

    return task


def _databases(row: _Row) -> list[str]:
    found: list[Any] = [row.db_path]
    for name, value in (row.model_extra or {}).items():
        if _DATABASE in name and value:
            found += value if isinstance(value, list) else [value]
    for name in found:
        if not isinstance(name, str):
            raise TaskFaultError(f"a further {_DATABASE} must be a path, not {name!r}")
    return list(dict.fromkeys(found))
