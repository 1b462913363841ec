"""Small task sets of our own in both public formats, and where the large ones are."""

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("EVALUATION_DATA", ROOT.parent / "shared" / "data"))
NO_DATA = (
    "no public task sets: put them beside the checkout as shared/data, or their path into EVALUATION_DATA"
)

PAGES = (
    "SUPPLY AGREEMENT\nbetween Acorn Mills Inc. and Birch Ltd, dated March 5, 2014.",
    "Either party may end this Agreement for any reason\nby giving ninety (90) days of written notice to the other.",
    "This Agreement shall be governed by the laws of the State of New York.",
)


def database(path: Path, ships: Mapping[str, int]) -> Path:
    """A file with one table, `ships(name, tons)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ships (name TEXT, tons INTEGER)")
        connection.executemany("INSERT INTO ships VALUES (?, ?)", ships.items())
        connection.commit()
    return path


def sql_row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"ships/{number}",
        "question": f"How many ships? ({number})",
        "db_path": "db/ships.sqlite",
        "gold_sql": "SELECT COUNT(*) FROM ships",
        "ordered": False,
        **fields,
    }


def contract_row(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"acorn/{name}",
        "contract": "acorn",
        "category": name,
        "question": f"What about {name}?",
        "answer": "New York",
        "answer_kind": "value",
        "evidence": [{"text": "governed by the laws of the State of New York", "page": 3, "page_end": 3}],
        "answerable": True,
        **fields,
    }


def written(path: Path, *rows: Mapping[str, Any] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sql_set(folder: Path, *rows: Mapping[str, Any] | str) -> Path:
    """A task file with its database beside it."""
    if not (folder / "db" / "ships.sqlite").exists():
        database(folder / "db" / "ships.sqlite", {"Ada": 10, "Bea": 20, "Cleo": 20})
    return written(folder / "tasks.jsonl", *(rows or (sql_row(1), sql_row(2))))


def contract_set(folder: Path, *rows: Mapping[str, Any]) -> Path:
    """A task file with its contract beside it."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    (folder / "text" / "acorn.txt").write_text("\f".join(PAGES), encoding="utf-8")
    written(folder / "contracts.jsonl", {"contract": "acorn", "type": "Supply", "pages": 3})
    return written(folder / "questions.jsonl", *(rows or (contract_row("Governing Law"),)))
