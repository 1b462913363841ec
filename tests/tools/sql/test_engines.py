"""On the real databases: honest queries answer as they do without a guard, and the engines refuse what a guard would miss."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from tests.servers import database, libpq
from tests.tools.sql import attacks, databases
from tests.tools.sql.test_guard import DIALECTS, HONEST, OWN
from tools.errors import ToolError, ToolUnavailableError
from tools.sql import Source, same_rows
from tools.sql.engines import Engine, Limits
from tools.sql.engines.postgres import reader_sql
from tools.sql.source import _engine

LIMITS = Limits(seconds=1.0, rows=100, bytes=100_000)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[dict[str, str]]:
    """Dialect → URL of the small database; PostgreSQL's is its reader's, whose role `reader_sql` wrote."""
    folder = tmp_path_factory.mktemp("small")
    with database(postgres_url) as owner:
        databases.postgres(libpq(owner))
        role = f"reader_{make_url(owner).database}"
        asyncio.run(_make_reader(owner, role))
        reader = make_url(owner).set(username=role).render_as_string(hide_password=False)
        yield {"sqlite": databases.sqlite(folder), "duckdb": databases.duck(folder), "postgres": reader, "owner": owner}
        with psycopg.connect(libpq(owner), autocommit=True) as connection:
            databases.run(connection, [f"DROP OWNED BY {role}", f"DROP ROLE {role}"])


async def _make_reader(owner: str, role: str) -> None:
    source = Source("small", databases.options(owner))
    schema = await source.schema()
    await source.close()
    with psycopg.connect(libpq(owner), autocommit=True) as connection:
        connection.execute(reader_sql(schema, role).encode())


@pytest_asyncio.fixture
async def source(urls: dict[str, str], dialect: str) -> AsyncIterator[Source]:
    made = Source("small", databases.options(urls[dialect]))
    yield made
    await made.close()


@pytest_asyncio.fixture
async def engine(urls: dict[str, str], dialect: str) -> AsyncIterator[Engine]:
    """The engine alone, without the guard before it."""
    source = Source("small", databases.options(urls[dialect]))
    made = _engine(await source.schema(), source.options)
    await source.close()
    yield made
    await made.close()


def plain(dialect: str, urls: dict[str, str], sql: str) -> list[tuple[Any, ...]]:
    """The rows without guard, engine or limits, read by the owner."""
    if dialect == "postgres":
        with psycopg.connect(libpq(urls["owner"])) as connection:
            return connection.execute(sql.encode()).fetchall()
    path = str(make_url(urls[dialect]).database)
    if dialect == "duckdb":
        with duckdb.connect(path, read_only=True) as reader:
            return reader.execute(sql).fetchall()
    with closing(sqlite3.connect(path)) as file:
        return file.execute(sql).fetchall()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_honest_query_answers_as_it_does_without_a_guard(source: Source, urls: dict[str, str], dialect: str):
    for sql in [*HONEST, *OWN[dialect]]:
        answer, _ = await source.query(sql)
        named = "* EXCLUDE" in sql or sql == "FROM people"
        if named:  # what is hidden is not there
            assert "salary" not in answer.columns, sql
            continue
        expected = [tuple(_as_read(cell) for cell in row) for row in plain(dialect, urls, sql)]
        assert same_rows(answer.rows, expected, ordered="ORDER BY" in sql), (sql, answer.rows, expected)


def _as_read(value: object) -> object:
    return value if value is None or isinstance(value, int | float | str) else str(value)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_with_no_guard_at_all_no_attack_reads_what_is_hidden_or_writes(
    engine: Engine, urls: dict[str, str], dialect: str
):
    count = "SELECT (SELECT COUNT(*) FROM people) + (SELECT COUNT(*) FROM orders) + (SELECT COUNT(*) FROM secrets)"
    before = plain(dialect, urls, count)
    leaks = []
    for sql in attacks.of(dialect):
        try:
            answer = await engine.query(sql, LIMITS)
        except (ToolError, ToolUnavailableError) as error:
            said = str(error)
        else:
            said = repr((answer.columns, answer.rows))
        if any(secret in said for secret in (str(databases.SALARY), databases.TOKEN, "root:x:")):
            leaks.append((sql, said))
    assert leaks == []
    assert plain(dialect, urls, count) == before


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT salary FROM people",
        "SELECT * FROM people",
        "SELECT count(*) FROM people WHERE salary > 1",
        "SELECT token FROM secrets",
        "SELECT p FROM people p",
        "DELETE FROM people",
        "CREATE TABLE t (x INTEGER)",
        "SELECT 1; SELECT 2",
        "SELECT salary FROM payroll",
    ],
)
async def test_the_engine_by_itself_refuses_what_is_not_allowed(engine: Engine, sql: str):
    with pytest.raises(ToolError):
        await engine.query(sql, LIMITS)


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_statement_without_end_is_stopped_and_the_next_one_answers(source: Source):
    with pytest.raises(ToolError, match=r"longer than 0\.3 s"):
        await source.query(ENDLESS, seconds=0.3)
    answer, _ = await source.query("SELECT COUNT(*) FROM people")
    assert list(answer.rows) == [(4,)]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_cancelled_statement_is_stopped_at_once_and_the_next_one_answers(source: Source):
    await source.query("SELECT 1")
    running = asyncio.create_task(source.query(ENDLESS, seconds=60))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - started < 20  # not the minute that it was given
    answer, _ = await source.query("SELECT COUNT(*) FROM people")
    assert list(answer.rows) == [(4,)]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_several_statements_run_at_once(source: Source):
    answers = await asyncio.gather(*(source.query(f"SELECT {n} AS n FROM people WHERE id = 1") for n in range(12)))
    assert [list(answer.rows) for answer, _ in answers] == [[(n,)] for n in range(12)]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_rows_and_bytes_are_limited_and_the_cut_is_told(urls: dict[str, str], dialect: str):
    few = Source("small", databases.options(urls[dialect], max_rows=3, max_bytes=1_000))
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) "
    try:
        answer, _ = await few.query("SELECT id FROM people")
        assert (len(answer.rows), answer.cut) == (3, "rows")
        answer, _ = await few.query("SELECT id FROM people WHERE id < 4")
        assert (len(answer.rows), answer.cut) == (3, None)
    finally:
        await few.close()
    small = Source("small", databases.options(urls[dialect], max_bytes=1_000))
    try:
        answer, _ = await small.query(f"{many} SELECT '{'x' * 100}' FROM n")
        assert answer.cut == "bytes"
        assert len(answer.rows) == 10
    finally:
        await small.close()


async def test_a_file_that_is_not_there_is_an_outage_and_not_the_models_fault(tmp_path: Path):
    source = Source("gone", databases.options(f"sqlite:///{tmp_path}/none.db"))
    with pytest.raises(ToolUnavailableError):
        await source.query("SELECT 1")
    await source.close()


async def test_options_that_name_what_is_not_there_are_an_error_of_whoever_wrote_them(urls: dict[str, str]):
    source = Source("small", databases.options(urls["sqlite"], hidden_columns=("people.sallary",)))
    with pytest.raises(ValueError, match=r"people\.sallary"):
        await source.schema()
