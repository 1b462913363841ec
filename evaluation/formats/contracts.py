"""Questions about contracts, with the answers and the passages that hold them."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evaluation.formats.inside import TaskFaultError, inside
from evaluation.tasks import AnswerKind, ContractTask, Evidence

FIELDS = frozenset({"id", "question", "contract", "answer", "evidence"})
_CONTRACTS = "contracts.jsonl"


class _Passage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    text: str
    page: int = Field(ge=1)
    page_end: int | None = None


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    contract: str = Field(min_length=1)
    answer: str | None
    answer_kind: AnswerKind | None = None
    evidence: tuple[_Passage, ...]
    answerable: bool | None = None
    category: str | None = None


def reader(folder: Path) -> Callable[[Mapping[str, Any]], ContractTask]:
    """What makes a task of a line of a file in `folder`; it raises `TaskFaultError` or pydantic's `ValidationError`."""
    types = _types(folder / _CONTRACTS)

    @cache
    def text(contract: str) -> Path:
        return inside(folder, f"text/{contract}.txt")

    def task(fields: Mapping[str, Any]) -> ContractTask:
        row = _Row.model_validate(fields)
        answerable = row.answer is not None if row.answerable is None else row.answerable
        if answerable and not (row.answer and row.evidence):
            raise TaskFaultError(f"{row.id} is answerable, but without answer or evidence")
        kind = row.answer_kind or "span"
        groups = {"category": row.category or "none", "answer": kind if answerable else "none"}
        if types:
            groups["contract type"] = types.get(row.contract, "unknown")
        return ContractTask(
            id=row.id,
            question=row.question,
            document=row.contract,
            path=text(row.contract),
            answer=row.answer if answerable else None,
            answer_kind=kind,
            evidence=tuple(Evidence(one.text, one.page, one.page_end or one.page) for one in row.evidence),
            groups=groups,
        )

    return task


def _types(path: Path) -> Mapping[str, str]:
    """Each contract's type; none where the file is not there. Raises `TaskFaultError`."""
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
        return {row["contract"]: str(row.get("type") or "unknown") for row in rows}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TaskFaultError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
