"""Knowledge from files: TOML and JSON Lines of any kind, CSV of questions and their SQL, DDL as schema cards."""

import csv
import io
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tools.knowledge.items import Item, Kind, KnowledgeError
from tools.knowledge.schema import ddl_cards


class _Entry(BaseModel):
    """A line of JSON, or a row of CSV by its header."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Kind
    text: str = ""
    question: str = ""
    sql: str | None = None
    refusal: str | None = None
    keywords: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> "_Entry":
        if self.kind != "examples":
            if not self.text.strip():
                raise ValueError(f"{self.kind} need text")
        elif not self.question.strip() or (self.sql is None) == (self.refusal is None):
            raise ValueError("examples need question, and either sql or refusal")
        return self

    def item(self) -> Item:
        return Item(
            kind=self.kind,
            text=self.text,
            question=self.question,
            answer=_answer(self.model_dump(include={"sql", "refusal"}, exclude_none=True)),
            keywords=self.keywords,
        )


def read(path: Path) -> list[Item]:
    """The items of a knowledge file (TOML tables `schemas`, `examples`, `heuristics`). Raises `KnowledgeError`."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        return [
            Item(
                kind=kind,
                text=_text(entry, "text"),
                question=_text(entry, "question"),
                answer=_answer(entry),
                keywords=_text(entry, "keywords"),
            )
            for kind in get_args(Kind)
            for entry in data[kind]
        ]
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise KnowledgeError(f"{path}: {type(error).__name__}: {error}") from error


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name, "")
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {value!r}")
    return value


def _answer(entry: dict[str, str]) -> str:
    """An example's answer in the form in which a model gives it."""
    answer = {key: entry[key] for key in ("sql", "refusal") if key in entry}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")) if answer else ""


def read_any(path: Path, *, kind: Kind | None = None, dialect: str | None = None) -> list[Item]:
    """The items of a file, read as its ending says; see `ENDINGS`.

    `kind` is that of JSON lines and CSV rows that do not say theirs; `dialect` is sqlglot's name of the DDL's. Raises
    `KnowledgeError` with the file, the line and the fault.
    """
    if path.suffix == ".toml":
        return read(path)
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".sql":
            return ddl_cards(text, dialect=dialect)
        return list(_ROWS[path.suffix](text, kind))
    except KeyError as error:
        raise KnowledgeError(f"{path}: its name must end in one of {', '.join(ENDINGS)}") from error
    except (OSError, UnicodeDecodeError, KnowledgeError) as error:
        raise KnowledgeError(f"{path}: {error}") from error


def _json_lines(text: str, kind: Kind | None) -> Iterator[Item]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise KnowledgeError(f"line {number}: not JSON: {error}") from error
            yield _checked(entry, kind, number)


def _csv_rows(text: str, kind: Kind | None) -> Iterator[Item]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for row in rows:
            if None in row or None in row.values():
                raise KnowledgeError(f"line {number + 1}: as many cells are needed as the header has")
            # An empty cell says nothing: of sql and refusal, each row has one.
            yield _checked({name: cell for name, cell in row.items() if cell}, kind or "examples", number + 1)
            number = rows.line_num
    except csv.Error as error:
        raise KnowledgeError(f"line {number + 1}: {error}") from error


def _checked(entry: Any, kind: Kind | None, number: int) -> Item:
    try:
        if isinstance(entry, dict) and kind is not None:
            entry = {"kind": kind, **entry}
        return _Entry.model_validate(entry).item()
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors())
        raise KnowledgeError(f"line {number}: {'; '.join(faults)}") from error


_ROWS: dict[str, Callable[[str, Kind | None], Iterator[Item]]] = {".jsonl": _json_lines, ".csv": _csv_rows}
ENDINGS = (".toml", ".sql", *_ROWS)
