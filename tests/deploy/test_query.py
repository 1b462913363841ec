"""SQL over an export, and the commands in front of it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.errors import FlywheelError
from deploy.query import ask, opened
from deploy.settings import Settings
from feedback.export import export
from feedback.store import Store
from feedback.store.snapshot import Extent
from tests.contracts.samples import at, rating, request


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`flywheel WORDS…` with these settings, in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, typed: str = "") -> Any:
        return CliRunner().invoke(
            app, ["--config", str(settings.root / "flywheel.toml"), *words], input=typed
        )

    return run


@pytest.fixture
def filled(settings: Settings) -> Settings:
    store = Store.open(settings.feedback.store_url)
    store.write([request(f"r{n}", time=at(n)) for n in range(3)])
    store.write([rating("r0", value=True), rating("r1", value=False)])
    store.close()
    return settings


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    store = Store.open(f"sqlite:///{folder}/store.db")
    store.write([request(f"r{n}", time=at(n)) for n in range(3)])
    store.write([rating("r0", value=True), rating("r1", value=False)])
    export(store, folder, Extent())
    store.close()
    return folder


@pytest.fixture
def connection(exported: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with opened(exported) as connection:
        yield connection


def test_ratings_are_joined_with_what_they_are_about(connection: duckdb.DuckDBPyConnection):
    sql = """SELECT policy, AVG(number), SUM(len(completion_token_ids)) FROM ratings
             JOIN requests USING (tenant, request_id) JOIN calls USING (tenant, request_id)
             WHERE current GROUP BY policy;"""
    assert list(ask(connection, sql).rows) == [("sql-analyst@base", 0.5, 4)]


@pytest.mark.parametrize("sql", ["DESCRIBE calls", "SUMMARIZE ratings", "FROM requests", "SHOW TABLES"])
def test_what_only_reads_is_answered(connection: duckdb.DuckDBPyConnection, sql: str):
    assert list(ask(connection, sql).rows)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "COPY requests TO '{export}/out.csv'",
        "EXPLAIN ANALYZE COPY requests TO '{export}/out.csv'",
        "EXPORT DATABASE '{export}/out'",
        "ATTACH '{export}/out.db'",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW requests",
        "SET enable_external_access = true",
        "CALL enable_logging(storage = 'file')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_blob('{export}/../store.db')",
        "FROM '/etc/hostname'",
        "FROM place",
        "SELECT CAST('x' || range AS INT) FROM range(5000)",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM query('COPY requests TO ''{export}/out.csv''')",
        "SELECT nothing FROM requests",
        "SELEKT",
    ],
)
def test_an_export_is_read_and_nothing_else(connection: duckdb.DuckDBPyConnection, exported: Path, sql: str):
    place = (exported / "latest").resolve()
    before = sorted(place.rglob("*"))
    with pytest.raises(FlywheelError, match=r"."):
        list(ask(connection, sql.format(export=place)).rows)
    assert sorted(place.rglob("*")) == before
    assert list(ask(connection, "SELECT COUNT(*) FROM requests").rows) == [(3,)]


def test_export_and_query_by_the_commands(filled: Settings, run: Any):
    done = run("export")
    assert (done.exit_code, "3 requests, 3 calls, 2 ratings" in done.output) == (0, True)
    assert run("query", "--csv", "SELECT request_id, time FROM requests ORDER BY 1").output.splitlines()[
        :2
    ] == [
        "request_id,time",
        "r0,2026-01-01 00:00:00+00:00",
    ]
    assert "sql-analyst" in run("query", "SELECT DISTINCT agent FROM requests").output
    many = run("query", "SELECT * FROM range(1000)")
    assert "the first 200 rows" in many.output


def test_a_query_at_the_prompt_may_have_many_lines_and_a_wrong_one_ends_nothing(
    filled: Settings, run: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "readline", os)  # the real one changes the terminal of the tests
    run("export")
    done = run("query", "--csv", typed="SELEKT;\nSELECT COUNT(*) AS n\nFROM calls;\n")
    assert done.exit_code == 0
    assert "syntax error" in done.output
    assert "n\n3\n" in done.output


def test_an_export_of_some(filled: Settings, run: Any, tmp_path: Path):
    elsewhere = str(tmp_path / "some")
    assert (
        "2 requests" in run("export", elsewhere, "--since", "2026-01-01T00:01", "--tenant", "default").output
    )
    assert run("query", "--csv", "--export", elsewhere, "SELECT COUNT(*) FROM requests").output.endswith(
        "2\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("query", "SELECT 1"), "make one with `flywheel export`"),
        (("export", "--since", "yesterday"), "--since yesterday: write a day"),
        (("store", "analyst", "ada"), "SQLite knows no roles"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(run: Any, words: tuple[str, ...], said: str):
    error = run(*words).exception
    assert isinstance(error, FlywheelError)
    assert said in str(error)


def test_an_analyst_is_made_and_told_a_url_that_works(
    settings: Settings, run: Any, postgres_store_url: str, monkeypatch: pytest.MonkeyPatch
):
    import uuid

    import psycopg

    monkeypatch.setenv("FLYWHEEL_FEEDBACK__STORE_URL", postgres_store_url)
    name = f"ada_{uuid.uuid4().hex}"
    url = run("store", "analyst", name).output.strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (name,)
