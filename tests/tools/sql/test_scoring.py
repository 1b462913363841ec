"""The SQL tool: one SELECT, read-only, within limits; and when two results are the same."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.insurance.questions import Split, questions
from tools.errors import ToolError
from tools.sql import Database, canonical, is_ordered, parse_select, same_rows

Rows = list[tuple[object, ...]]

FRAGMENTS = (
    "SELECT FROM WHERE claims kind amount * ( ) , ; -- /* */ ' \" ` [ ] 1 1.5 1e9 0x1 x'41' ? :x @x || + - / == <> < "
    "AND OR NOT NULL IS IN LIKE BETWEEN CASE WHEN THEN END GROUP BY ORDER LIMIT UNION ALL WITH RECURSIVE AS JOIN USING "
    "ON count sum strftime cast INTEGER INTERVAL { } {% \\ \x00 é ² ٣ \u2028 \ud800 ->> :: OVER PARTITION PIVOT UNNEST "
    "VALUES DELETE UPDATE PRAGMA INTO RETURNING EXPLAIN COLLATE MATCH"
).split(" ")


@pytest.fixture(scope="module")
def database(insurance: tuple[Path, Path]) -> Database:
    return Database(insurance[0], seconds=10)


@pytest.fixture(scope="module")
def plain(insurance: tuple[Path, Path]):
    with closing(sqlite3.connect(insurance[0])) as connection:
        yield connection


def test_a_select_gives_its_columns_and_rows(database: Database, plain: sqlite3.Connection):
    result = database.query("SELECT kind, COUNT(*) AS n FROM claims GROUP BY kind")
    assert result.columns == ("kind", "n")
    assert list(result.rows) == plain.execute("SELECT kind, COUNT(*) FROM claims GROUP BY kind").fetchall()
    assert len(result.rows) == 5
    assert not result.truncated


@pytest.mark.parametrize(
    "sql",
    [
        "WITH t AS (SELECT 1 AS x) SELECT x FROM t",
        "SELECT 1 UNION SELECT 2",
        "SELECT 1;",
        "  SELECT 1 -- why not\n",
        "SELECT (SELECT MAX(amount) FROM claims)",
    ],
)
def test_a_select_may_have_subqueries_set_operations_comments_and_an_end(database: Database, sql: str):
    assert database.query(sql).rows


@pytest.mark.parametrize(
    "sql",
    [
        "",
        ";",
        "-- SELECT 1",
        "/* SELECT 1 */",
        "SELECT",
        "SELECT FROM WHERE",
        "SELECT nothing FROM nowhere",
        "SELECT ?",
        "SELECT :name",
        # writing
        "DELETE FROM claims",
        "INSERT INTO claims VALUES (1)",
        "REPLACE INTO claims VALUES (1)",
        "UPDATE claims SET amount = 0",
        "DROP TABLE claims",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t AS SELECT 1",
        "ALTER TABLE claims RENAME TO t",
        "SELECT * INTO t FROM claims",
        "VACUUM",
        "BEGIN",
        # writing inside a SELECT
        "WITH gone AS (DELETE FROM claims RETURNING *) SELECT * FROM gone",
        "WITH t AS (SELECT 1) DELETE FROM claims",
        "WITH t AS (SELECT 1) INSERT INTO claims SELECT * FROM t",
        # other statements
        "PRAGMA table_info(claims)",
        "PRAGMA writable_schema = 1",
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "EXPLAIN SELECT 1",
        "VALUES (1)",
        # two at once, seen or hidden
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM claims",
        "SELECT 1 /* ; */ ; /* */ DROP TABLE claims",
        "SELECT 1 --\n; DROP TABLE claims",
        "SELECT 1 /* */; -- ; \nDELETE FROM claims",
        "SELECT ';' ; DELETE FROM claims",
        "SELECT 1\x00; DELETE FROM claims",
        # what a SELECT may not reach
        "SELECT * FROM sqlite_master",
        "SELECT * FROM SQLITE_MASTER",
        'SELECT * FROM "sqlite_schema"',
        "SELECT * FROM [sqlite_temp_master]",
        "SELECT (SELECT sql FROM main.sqlite_master LIMIT 1)",
        "SELECT * FROM pragma_table_info('claims')",
        "SELECT * FROM dbstat",
        "SELECT load_extension('evil')",
        "SELECT LoAd_ExTeNsIoN('evil', 'entry')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT zeroblob(1000000000)",
        "SELECT randomblob(1000000000)",
        # letters that look like SQL
        "\uff33\uff25\uff2c\uff25\uff23\uff34 1",  # full width
        "SELECT\u200b1",
        "SELECT 1\uff1b DELETE FROM claims",
        "\u0405ELECT 1",
        "SELECT '\ud800'",
        "SELECT '\x00'",
        # depth
        "(" * 500 + "SELECT 1" + ")" * 500,
        "SELECT " + "(" * 3_000 + "1" + ")" * 3_000,
        "SELECT " + "NOT " * 5_000 + "1",
        "SELECT " + "1 + " * 5_000 + "1",
        "SELECT * FROM " + "(SELECT * FROM " * 400 + "claims" + ")" * 400,
    ],
    ids=lambda sql: ascii(sql[:40]),
)
def test_anything_but_one_select_that_runs_is_refused_in_words(database: Database, sql: str):
    with pytest.raises(ToolError) as refused:
        database.query(sql)
    assert str(refused.value).strip()
    assert "\x1b" not in str(refused.value)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(" ".join)))
@settings(deadline=None, max_examples=300)
def test_whatever_is_asked_gives_rows_or_a_tool_error_and_nothing_else(
    insurance: tuple[Path, Path], text: str
):
    for sql in (text, f"SELECT {text}", f"SELECT * FROM claims WHERE {text}"):
        try:
            result = Database(insurance[0], seconds=0.2).query(sql)
        except ToolError:
            continue
        assert len(result.rows) <= 1_000


def test_the_file_is_the_same_after_every_attempt_to_write(database: Database, insurance: tuple[Path, Path]):
    before = insurance[0].read_bytes()
    for sql in (
        "DELETE FROM claims",
        "SELECT 1; DROP TABLE claims",
        "WITH t AS (SELECT 1) DELETE FROM claims",
    ):
        with pytest.raises(ToolError):
            database.query(sql)
    assert insurance[0].read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM claims", "PRAGMA writable_schema = 1", "ATTACH ':memory:' AS x", "CREATE TEMP TABLE t (x)"],
)
def test_the_connection_alone_refuses_what_a_parser_would_let_through(
    database: Database, monkeypatch: pytest.MonkeyPatch, sql: str
):
    monkeypatch.setattr("tools.sql.scoring.parse_select", lambda text: text)
    with pytest.raises(ToolError, match=r"not authorized|prohibited"):
        database.query(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT MAX(n) FROM t",
        "SELECT COUNT(*) FROM claims, invoices, payments, coverages",
    ],
)
def test_a_query_without_end_is_stopped_at_its_time_limit(insurance: tuple[Path, Path], sql: str):
    database = Database(insurance[0], seconds=0.5)
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"longer than 0\.5 s"):
        database.query(sql)
    assert 0.5 <= time.monotonic() - started < 5


def test_no_single_call_outlives_the_clock_by_asking_for_a_giant_text(database: Database):
    started = time.monotonic()
    for sql in ("SELECT printf('%.*c', 2000000000, 'x')", "SELECT format('%.*c', 2000000000, 'x')"):
        with pytest.raises(ToolError, match="not authorized"):
            database.query(sql)
    assert time.monotonic() - started < 5


def test_a_cell_that_grows_without_end_is_refused(database: Database):
    with pytest.raises(ToolError, match="too big"):
        database.query("SELECT GROUP_CONCAT(a.kind || b.kind) FROM claims a, claims b")


def test_rows_beyond_the_limit_are_cut_and_the_cut_is_told(insurance: tuple[Path, Path]):
    database = Database(insurance[0], max_rows=5)
    exactly, more = (database.query(f"SELECT claim_id FROM claims LIMIT {n}") for n in (5, 6))
    assert (len(exactly.rows), exactly.truncated) == (5, False)
    assert (len(more.rows), more.truncated) == (5, True)


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="flywheel setup"):
        Database(tmp_path / "none.db")


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_every_gold_gives_the_rows_that_plain_sqlite_gives(
    database: Database, plain: sqlite3.Connection, split: Split
):
    """The statement that runs is regenerated from a parsed tree: that must not change what it means."""
    golds = {question.sql for question in questions(split) if question.sql is not None}
    assert golds
    different = [sql for sql in golds if list(database.query(sql).rows) != plain.execute(sql).fetchall()]
    assert different == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 7 / 2, 7.0 / 2, 7 % 3, -7 / 2, 1 || 2 * 3, NOT 0 = 1, 5 & 3 | 4, '5' + 3",
        "SELECT age IS NOT NULL, age NOTNULL, age IS 44 FROM customers ORDER BY customer_id",
        "SELECT * FROM claims ORDER BY amount DESC LIMIT 5, 3",
        "SELECT kind, COUNT(*) FILTER (WHERE status = 'open') FROM claims GROUP BY kind ORDER BY 1",
        "SELECT strftime('%Y', filed) AS y, SUM(amount) FROM claims GROUP BY y HAVING COUNT(*) > 3 ORDER BY y DESC",
        "SELECT name FROM customers WHERE age IS NULL ORDER BY name COLLATE NOCASE DESC LIMIT 9",
        "SELECT date('2020-01-31', '+1 month'), julianday('2020-01-01') - julianday('2019-01-01')",
        "SELECT kind FROM claims WHERE status = \"open\" AND NOT kind LIKE 'f%' AND amount BETWEEN 100 AND 900",
        "SELECT iif(age > 50, 'old', 'young'), COUNT(*), ifnull(MAX(age), 0) FROM customers GROUP BY 1",
        "SELECT rank() OVER (ORDER BY amount DESC), amount FROM claims LIMIT 20",
        "SELECT CAST('12abc' AS INT), CAST(3.7 AS INT), x'41', 0x10, .5, 'it''s', 'a\\b'",
        "SELECT p.kind FROM claims p LEFT JOIN payments q USING (claim_id) WHERE q.claim_id ISNULL ORDER BY 1",
        "SELECT kind, amount FROM claims c WHERE amount = (SELECT MAX(amount) FROM claims WHERE kind = c.kind)",
        "SELECT DISTINCT kind, status FROM claims EXCEPT SELECT 'fire', 'open'",
        "SELECT SUM(CASE kind WHEN 'fire' THEN 1 ELSE 0 END) * 100.0 / COUNT(*) FROM claims",
    ],
)
def test_what_sqlite_alone_knows_keeps_its_meaning(database: Database, plain: sqlite3.Connection, sql: str):
    rows = plain.execute(sql).fetchall()
    assert rows
    assert list(database.query(sql).rows) == rows


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT kind FROM claims ORDER BY kind", True),
        ("SELECT 1 UNION SELECT 2 ORDER BY 1", True),
        ("WITH t AS (SELECT 1 AS x) SELECT x FROM t ORDER BY x", True),
        ("SELECT kind FROM claims", False),
        ("SELECT * FROM (SELECT kind FROM claims ORDER BY kind)", False),
        ("SELECT rank() OVER (ORDER BY amount) FROM claims", False),
    ],
)
def test_only_the_outermost_order_counts(sql: str, ordered: bool):
    assert is_ordered(sql) is ordered


def test_what_is_no_select_has_no_order_to_ask_for():
    with pytest.raises(ToolError):
        is_ordered("DELETE FROM claims")
    with pytest.raises(ToolError):
        parse_select("nonsense (")


CELLS = st.one_of(st.none(), st.integers(-5, 5), st.sampled_from(["a", "b", "null", "1", ""]), st.just(b"a"))
TABLES = st.lists(st.tuples(CELLS, CELLS), max_size=6)


@given(TABLES, st.randoms())
def test_unordered_rows_are_the_same_in_every_order_and_ordered_rows_only_in_one(rows: Rows, random):
    shuffled = random.sample(rows, len(rows))
    assert same_rows(rows, shuffled)
    assert canonical(rows) == canonical(shuffled)
    assert same_rows(rows, shuffled, ordered=True) == (
        canonical(rows, ordered=True) == canonical(shuffled, ordered=True)
    )


@given(TABLES, TABLES)
def test_rows_are_the_same_exactly_when_their_canonical_texts_are(left: Rows, right: Rows):
    assert same_rows(left, right) == (canonical(left) == canonical(right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([(1,), (1,)], [(1,)]),  # how often a row occurs counts
        ([(1, 2)], [(2, 1)]),  # and so does the order of its columns
        ([(None,)], [("null",)]),
        ([(None,)], [("",)]),
        ([(None,)], [(0,)]),
        ([(1,)], [("1",)]),
        ([(1.0001,)], [(1.0002,)]),
        ([(1,)], [(1, None)]),
        ([], [(None,)]),
    ],
)
def test_different_results_are_told_apart(left: Rows, right: Rows):
    assert not same_rows(left, right)
    assert not same_rows(left, right, ordered=True)
    assert canonical(left) != canonical(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [([(0.1 + 0.2,)], [(0.3,)]), ([(2,)], [(2.0,)]), ([(True,)], [(1,)]), ([[1, "a"]], [(1, "a")])],
)
def test_numbers_are_the_same_to_four_decimals_whatever_their_type(left: Rows, right: Rows):
    assert same_rows(left, right)
    assert canonical(left) == canonical(right)


def test_a_number_beyond_all_floats_can_be_compared():
    """A person may have typed it into a correction."""
    assert same_rows([(10**400,)], [(10**400,)])
    assert not same_rows([(10**400,)], [(10**400 + 1,)])


def test_a_swap_of_rows_counts_only_where_order_does():
    assert same_rows([(1,), (2,)], [(2,), (1,)])
    assert not same_rows([(1,), (2,)], [(2,), (1,)], ordered=True)
