"""What a reference evaluates to: the same for every way to say the same, and an error for what says nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from deploy.curate import resolver
from feedback.curation import Resolve
from tools.sql import Database


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(1, "x"), (2, "y"), (3, "z")])
    return resolver(Database(path, max_rows=3))


def test_two_queries_with_the_same_rows_are_the_same(resolve: Resolve):
    assert resolve({"sql": "SELECT a FROM t"}) == resolve({"sql": "SELECT t.a FROM t ORDER BY a DESC"})
    assert resolve({"sql": "SELECT a FROM t"}) != resolve({"sql": "SELECT b FROM t"})


def test_rows_are_the_same_as_a_query_that_returns_them(resolve: Resolve):
    assert resolve({"rows": [[2, "y"], [1, "x"]]}) == resolve({"sql": "SELECT a, b FROM t WHERE a < 3"})


def test_refusals_are_the_same_whatever_their_words(resolve: Resolve):
    assert resolve({"refusal": "no such data"}) == resolve({"refusal": "cannot say"}) == "refusal"


@pytest.mark.parametrize(
    "reference", [{"sql": "SELECT nothing FROM t"}, {"sql": "DROP TABLE t"}, {"sql": 1}, {}]
)
def test_what_does_not_run_is_malformed(resolve: Resolve, reference: dict[str, object]):
    with pytest.raises(ValueError, match=r"."):
        resolve(reference)


def test_more_rows_than_can_be_read_say_nothing(resolve: Resolve):
    assert resolve({"sql": "SELECT l.a FROM t AS l JOIN t AS r ON 1 = 1"}) is None
