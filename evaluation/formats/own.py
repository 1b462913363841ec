"""Flywheel's own tasks: a conversation with a reference, as the trainer reads them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluation.formats.inside import TaskFaultError
from evaluation.tasks import Cell, SqlTask
from tools.errors import ToolError
from tools.sql import is_ordered

FIELDS = frozenset({"id", "messages", "reference"})


class _Message(BaseModel):
    role: Literal["user"]
    content: str


class _Reference(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sql: str | None = None
    rows: tuple[tuple[Cell, ...], ...] | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "_Reference":
        if (self.sql is None) + (self.rows is None) + (self.refusal is None) != 2:
            raise ValueError("one of sql, rows and refusal is expected")
        return self


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(min_length=1)
    messages: tuple[_Message] = Field(description="One question; longer conversations are not asked here.")
    reference: _Reference
    tags: dict[str, str] = {}


def reader(folder: Path) -> Callable[[Mapping[str, Any]], SqlTask]:  # noqa: ARG001  # as of the other formats
    """What makes a task of a line; it raises `TaskFaultError` or pydantic's `ValidationError`."""

    def task(fields: Mapping[str, Any]) -> SqlTask:
        row = _Row.model_validate(fields)
        sql = row.reference.sql
        return SqlTask(
            id=row.id,
            question=row.messages[0].content,
            databases=(),
            golds=(sql,) if sql is not None else (),
            rows=row.reference.rows,
            ordered=sql is not None and _ordered(sql),
            groups={"category": row.tags.get("level", "none"), **row.tags},
            cluster=row.tags.get("template", row.id),
        )

    return task


def _ordered(sql: str) -> bool:
    try:
        return is_ordered(sql)
    except ToolError as error:
        raise TaskFaultError(f"reference: {error}") from error
