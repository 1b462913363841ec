"""The same small database on SQLite, PostgreSQL and DuckDB, with a column and a table that must not be read."""

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import duckdb
import psycopg

from tools.sql import DatabaseOptions

SALARY, TOKEN, CODE = 987_654, "token-4711", 472_911
OPTIONS = {"tables": ("people", "orders"), "hidden_columns": ("people.salary",)}
TABLES = [
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, salary INTEGER, born DATE)",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, person_id INTEGER REFERENCES people (id), amount FLOAT, day DATE)",
    "CREATE TABLE secrets (id INTEGER, token VARCHAR(40))",
    "CREATE TABLE codes (code INTEGER)",
    "CREATE VIEW payroll AS SELECT name, salary FROM people",
    (
        f"INSERT INTO people VALUES (1, 'Ada', 'Bonn', {SALARY}, '1990-01-02'), "
        f"(2, 'Bob', 'Rom', {SALARY}, '1985-05-06'), "
        f"(3, 'Cy', NULL, {SALARY}, '1970-12-31'), (4, 'Dee', 'Bonn', {SALARY}, NULL)"
    ),
    (
        "INSERT INTO orders VALUES (1, 1, 10.5, '2024-01-31'), (2, 1, 20.25, '2024-02-29'), "
        "(3, 2, 30, '2024-12-31'), "
        "(4, 4, 40.75, '2023-06-01'), (5, 4, 7, '2023-06-02')"
    ),
    f"INSERT INTO secrets VALUES (1, '{TOKEN}')",
    f"INSERT INTO codes VALUES ({CODE})",
]


def sqlite(folder: Path) -> str:
    """The URL of a new SQLite file."""
    path = folder / "small.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in TABLES:
            connection.execute(statement)
    return f"sqlite:///{path}"


def duck(folder: Path) -> str:
    """The URL of a new DuckDB file."""
    path = folder / "small.duckdb"
    with duckdb.connect(path) as connection:
        for statement in TABLES:
            connection.execute(statement)
        connection.execute("COMMENT ON COLUMN people.city IS 'where they live'")
    return f"duckdb:///{path}"


def postgres(url: str) -> None:
    """Fill the PostgreSQL database at libpq's `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        run(connection, [*TABLES, "COMMENT ON COLUMN people.city IS 'where they live'", "ANALYZE"])


def run(connection: "psycopg.Connection", statements: Iterable[str]) -> None:
    """Run each as its owner."""
    for statement in statements:
        connection.execute(statement.encode())


def options(url: str, **more: object) -> DatabaseOptions:
    """What agents may read of it."""
    return DatabaseOptions.model_validate({"url": url, "seconds": 3, **OPTIONS, **more})
