"""What the database promises to those who score queries on it."""

import hashlib
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from domains.insurance.database import SCHEMA, build

ENUMS = [
    (table.split(" ", 1)[0], line.split()[0])
    for table in SCHEMA.read_text().split("CREATE TABLE ")[1:]
    for line in table.splitlines()
    if " IN (" in line
]
Instances = tuple[sqlite3.Connection, sqlite3.Connection]


def dump(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()
    finally:
        connection.close()


def tables(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def test_a_seed_fixes_every_row(tmp_path: Path) -> None:
    build(tmp_path / "a.db", 5)
    build(tmp_path / "b.db", 5)
    build(tmp_path / "c.db", 6)
    assert dump(tmp_path / "a.db") == dump(tmp_path / "b.db") != dump(tmp_path / "c.db")


def test_building_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    build(path, 6)
    build(path, 5)
    build(tmp_path / "b.db", 5)
    assert dump(path) == dump(tmp_path / "b.db")


def test_every_reference_points_at_a_row(instances: Instances) -> None:
    for connection in instances:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_row_counts_differ_between_seeds_in_every_table(instances: Instances) -> None:
    first, second = instances
    assert len(tables(first)) == 10
    for table in tables(first):
        query = f"SELECT COUNT(*) FROM {table}"
        assert first.execute(query).fetchone() != second.execute(query).fetchone(), table


def test_the_schema_declares_the_enums_this_suite_looks_at() -> None:
    assert len(ENUMS) == 13


@pytest.mark.parametrize(("table", "column"), ENUMS)
def test_no_two_values_of_an_enum_are_equally_frequent(instances: Instances, table: str, column: str) -> None:
    """Otherwise a query that filters on the wrong value would score as right."""
    for connection in instances:
        counts = Counter(value for (value,) in connection.execute(f"SELECT {column} FROM {table}"))
        assert len(set(counts.values())) == len(counts) > 1


def test_a_join_key_has_one_name_in_both_tables(instances: Instances) -> None:
    for table in tables(instances[0]):
        for key in instances[0].execute(f"PRAGMA foreign_key_list({table})").fetchall():
            assert key[3] in {row[1] for row in instances[0].execute(f"PRAGMA table_info({key[2]})")}


def test_a_status_outside_the_enum_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "a.db", 5)
    connection = sqlite3.connect(tmp_path / "a.db")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE policies SET status = 'sleeping' WHERE policy_id = 1")
    connection.close()
