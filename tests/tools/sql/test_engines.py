"""On real databases: honest queries answer as without a guard, and the engines refuse what a guard would miss."""

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
        yield {
            "sqlite": databases.sqlite(folder),
            "duckdb": databases.duck(folder),
            "postgres": reader,
            "owner": owner,
        }
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
async def test_an_honest_query_answers_as_it_does_without_a_guard(
    source: Source, urls: dict[str, str], dialect: str
):
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
    answers = await asyncio.gather(
        *(source.query(f"SELECT {n} AS n FROM people WHERE id = 1") for n in range(12))
    )
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


async def test_a_query_in_with_that_is_called_like_a_view_reads_no_more_for_that(tmp_path: Path):
    url = databases.sqlite(tmp_path)
    with closing(sqlite3.connect(make_url(url).database or "")) as file:
        file.execute("CREATE VIEW inner_v AS SELECT name, salary > 1 AS rich FROM people")
        file.execute("CREATE VIEW v AS SELECT name, printf('%d', rich) AS rich FROM inner_v")
    options = databases.options(url, tables=("people", "v"))
    source = Source("small", options)
    engine = _engine(await source.schema(), options)
    try:
        for called in ("v", "inner_v", 'v"', "v(salary)", "v/**/"):
            named = f'"{called}' if called.endswith('"') else called
            with pytest.raises(ToolError, match=r"prohibited|not authorized"):
                await engine.query(
                    f"WITH {named} AS (SELECT salary FROM people) SELECT salary FROM v, inner_v", LIMITS
                )
        answer, _ = await source.query(
            "WITH t AS (SELECT * FROM v) SELECT x.rich FROM t AS x JOIN v ON x.name = v.name"
        )
        assert answer.rows[0] == ("1",), "a view may read another, and by any function"
        with pytest.raises(ToolError):
            await engine.query("SELECT rich FROM inner_v", LIMITS)
    finally:
        await engine.close()
        await source.close()


async def test_a_table_of_the_same_name_elsewhere_is_another(tmp_path: Path):
    url = databases.duck(tmp_path)
    with duckdb.connect(str(make_url(url).database)) as writer:
        writer.execute("CREATE SCHEMA other")
        writer.execute("CREATE TABLE other.people AS SELECT 1 AS id, 'hidden' AS name")
    source = Source("small", databases.options(url))
    engine = _engine(await source.schema(), source.options)
    await source.close()
    with pytest.raises(ToolError, match="not authorized: table people"):
        await engine.query("SELECT name FROM other.people", LIMITS)
    await engine.close()


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])
async def test_letters_beyond_ascii_are_never_the_same_in_capitals(
    urls: dict[str, str], tmp_path: Path, dialect: str
):
    url = databases.sqlite(tmp_path) if dialect == "sqlite" else databases.duck(tmp_path)
    path = str(make_url(url).database)
    with closing(sqlite3.connect(path) if dialect == "sqlite" else duckdb.connect(path)) as writer:
        for statement in (
            'CREATE TABLE "\u00c4rzte" (id INTEGER, "GR\u00d6SSE" INTEGER)',
            'INSERT INTO "\u00c4rzte" VALUES (1, 180)',
            'CREATE TABLE "\u00e4rzte" (id INTEGER, token TEXT)',
        ):
            writer.execute(statement)
        writer.commit()
    source = Source(
        "small", databases.options(url, tables=("people", "\u00c4rzte"), hidden_columns=("people.salary",))
    )
    try:
        answer, _ = await source.query('SELECT "GR\u00d6SSE" FROM "\u00c4rzte"')
        assert list(answer.rows) == [(180,)]
        with pytest.raises(ToolError, match="there is no table"):
            await source.query('SELECT token FROM "\u00e4rzte"')
    finally:
        await source.close()


@pytest.mark.parametrize("dialect", ["postgres"])
async def test_a_long_cell_of_any_type_is_cut_before_it_comes(source: Source, engine: Engine):
    long = (
        "SELECT CAST(10 AS NUMERIC) ^ 100000 AS n, REGEXP_MATCH(REPLACE('aaaaaaaaaa', 'a', "
        f"'{'x' * 1_000}'), '.*') AS a, TO_CHAR(DATE '2024-01-31', '{'x' * 1_000}') AS t"
    )
    answer, _ = await source.query(long)
    assert answer.types == ("numeric", "text[]", "text")
    assert [len(str(value)) for value in answer.rows[0]] == [source.options.max_cell + 1] * 3
    bits = await engine.query("SELECT CAST(1 AS BIT(8000000)), CAST('\\x00' AS bytea)", LIMITS)
    assert len(str(bits.rows[0][0])) == source.options.max_cell + 1


@pytest.mark.parametrize("dialect", ["duckdb"])
async def test_a_time_with_a_zone_can_be_read(source: Source):
    answer, _ = await source.query("SELECT CAST('2024-01-31 12:00:00+00' AS TIMESTAMPTZ) AS t, 1 AS n")
    assert (answer.columns, answer.rows[0][1]) == (("t", "n"), 1)
    assert str(answer.rows[0][0]).startswith("2024-01-31")


@pytest.mark.parametrize("dialect", ["duckdb"])
async def test_what_functions_make_is_bounded_in_memory(source: Source):
    long = f"'{'x' * 100}'"
    for _ in range(5):
        long = f"REPLACE({long}, 'x', '{'x' * 20}')"
    with pytest.raises(ToolError, match="needed more memory"):
        await source.query(f"SELECT LENGTH({long}) FROM people", seconds=60)
    answer, _ = await source.query("SELECT COUNT(*) FROM people")
    assert list(answer.rows) == [(4,)]
