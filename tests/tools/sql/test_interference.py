"""No statement that passes tells anything of what is hidden, were the guard all that there is.

Of each database there are two, which differ in what is hidden and in nothing else. What passes the guard runs on both
as their owner, with no second wall, and must answer alike, whether with rows (in their order) or an error.
"""

import itertools
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from tests.servers import database, libpq
from tests.tools.sql import attacks, databases, queries
from tests.tools.sql.test_guard import DIALECTS, GUARDS, HONEST, OWN
from tools.errors import ToolError

Ask = Callable[[str], object]
_MOST = 500
_SECONDS = 2.0


def other(statement: str) -> str:
    """The same with other secrets, no two alike."""
    number = itertools.count(96)
    changed = re.sub(str(databases.SALARY), lambda _: str(next(number) % 99), statement)
    return changed.replace(databases.TOKEN, "another").replace(str(databases.CODE), "12")


@pytest.fixture(scope="module", params=DIALECTS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Ask]]]:
    """A dialect, and the two databases."""
    with ExitStack() as stack:
        asked = []
        for change in (str, other):
            tables = [change(statement) for statement in databases.TABLES]
            if request.param == "postgres":
                url = stack.enter_context(database(request.getfixturevalue("postgres_url")))
                asked.append(stack.enter_context(psycopg.connect(libpq(url), autocommit=True)))
                databases.run(asked[-1], [*tables, f"SET statement_timeout = {_SECONDS * 1_000:.0f}"])
            else:
                opened = sqlite3 if request.param == "sqlite" else duckdb
                asked.append(stack.enter_context(closing(opened.connect(":memory:"))))
                for statement in tables:
                    asked[-1].execute(statement)
        yield request.param, [partial(ask, connection) for connection in asked]


def ask(
    connection: "sqlite3.Connection | duckdb.DuckDBPyConnection | psycopg.Connection", sql: str
) -> object:
    try:
        if isinstance(connection, psycopg.Connection):
            return connection.execute(sql.encode()).fetchmany(_MOST)
        return connection.execute(sql).fetchmany(_MOST)
    except psycopg.errors.QueryCanceled:
        return "too long"
    except (sqlite3.Error, duckdb.Error, psycopg.Error) as error:
        return str(error)


def assert_alike(dialect: str, asked: list[Ask], sql: str) -> bool:
    """Whether it passed; if so, that both answer alike."""
    try:
        written = GUARDS[dialect].check(sql).sql
    except ToolError:
        return False
    one, two = ({repr(each(written))} for each in asked)
    for _ in range(
        5
    ):  # an engine may give rows in any order: it tells where no answer of one is one of the other's
        if one & two or repr("too long") in one | two:
            return True
        one.add(repr(asked[0](written)))
        two.add(repr(asked[1](written)))
    raise AssertionError(f"{sql}\n{written}\n{one}\n{two}")


def test_the_two_differ_and_what_is_honest_does_not_tell(pair: tuple[str, list[Ask]]):
    dialect, asked = pair
    for hidden in ("SELECT salary FROM people", "SELECT token FROM secrets", "SELECT code FROM codes"):
        one, two = (each(hidden) for each in asked)
        assert isinstance(one, list) and isinstance(two, list) and one != two
    assert all(assert_alike(dialect, asked, sql) for sql in [*HONEST, *OWN[dialect]])


def test_no_attack_tells(pair: tuple[str, list[Ask]]):
    dialect, asked = pair
    assert not [sql for sql in attacks.of(dialect) if assert_alike(dialect, asked, sql)]


@given(sql=queries.QUERIES)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_random_query_tells(pair: tuple[str, list[Ask]], sql: str):
    assert_alike(*pair, sql)
