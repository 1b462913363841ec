"""What people really ask: of public gold queries, at least 99 in 100 pass the guard and answer as they do without it.

The data are not the repository's: `TEXT2SQL_DATA` names their folder, else they lie beside the checkout.
"""

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tools.errors import ToolError
from tools.sql import same_rows
from tools.sql.guard import Guard
from tools.sql.inspection import read
from tools.sql.options import DatabaseOptions

BESIDE = Path(__file__).parents[4] / "shared" / "data" / "text2sql"
DATA = Path(os.environ.get("TEXT2SQL_DATA", BESIDE))
SAMPLE = 250  # of each split

pytestmark = pytest.mark.skipif(
    not (DATA / "dev.jsonl").is_file(), reason="no text-to-SQL data: put the path of their folder into TEXT2SQL_DATA"
)


def golds() -> Iterator[tuple[str, str]]:
    """Database and statement."""
    for split in ("dev", "train"):
        tasks: list[dict[str, Any]] = [json.loads(line) for line in (DATA / f"{split}.jsonl").open(encoding="utf-8")]
        for task in random.Random(0).sample(tasks, min(SAMPLE, len(tasks))):
            for sql in (task["gold_sql"], *task["gold_sql_alternatives"]):
                if sql:
                    yield task["db_path"], sql


def test_gold_queries_pass_the_guard_and_answer_the_same():
    guards: dict[str, Guard] = {}
    asked, failed = 0, []
    for path, sql in golds():
        asked += 1
        with closing(sqlite3.connect(f"file:{DATA / path}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            if path not in guards:
                options = DatabaseOptions(url=f"sqlite:///{DATA / path}")
                guards[path] = Guard(read(make_url(options.url), options))
            expected = connection.execute(sql).fetchmany(5_000)
            try:
                statement = guards[path].check(sql)
                rows = connection.execute(statement.sql).fetchmany(5_000)
            except (ToolError, sqlite3.Error) as error:
                failed.append((sql, str(error)))
                continue
        if not same_rows(rows, expected, ordered="order by" in sql.lower()):
            failed.append((sql, "other rows"))
    assert asked > SAMPLE
    assert len(failed) <= asked // 100, failed
