"""The guard: one query over what may be read, whatever it is dressed as; anything else is refused with the reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.sql import attacks
from tests.tools.sql.test_scoring import FRAGMENTS
from tools.errors import ToolError
from tools.sql.guard import Guard
from tools.sql.schema import Column, Schema, Table

DIALECTS = ("sqlite", "postgres", "duckdb")
PEOPLE = ("id", "name", "city", "born")


def schema(dialect: str) -> Schema:
    place = "public" if dialect == "postgres" else "main"
    return Schema(
        dialect,
        [
            Table(place, "people", tuple(Column(c, "text") for c in PEOPLE), hidden=frozenset({"salary"})),
            Table(place, "orders", tuple(Column(c, "text") for c in ("id", "person_id", "amount", "day"))),
        ],
        default=place,
        names=("secrets", "codes"),
    )


GUARDS = {dialect: Guard(schema(dialect)) for dialect in DIALECTS}


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [(dialect, sql) for dialect in DIALECTS for sql in attacks.of(dialect)],
    ids=lambda value: ascii(value[:60]),
)
def test_an_attack_is_refused_with_a_reason_that_a_model_can_read(dialect: str, sql: str):
    with pytest.raises(ToolError) as refused:
        GUARDS[dialect].check(sql)
    reason = str(refused.value)
    assert reason.strip()
    assert reason.isprintable() or "\n" in reason
    assert len(reason) < 1_000


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT naem FROM people", "did you mean people.name?"),
        ("SELECT p.naem FROM people p", "did you mean people.name?"),
        ("SELECT name FROM peple", "did you mean people?"),
        ("SELECT amount FROM people", "did you mean orders.amount?"),
        ("SELECT people.id FROM people JOIN orders ON id = person_id", "say which"),
        ("SELECT x.id FROM people", "no table or alias x"),
        ("SELECT name FROM people WHERE", "line 1"),
        ("SELECT name\nFROM people\nWHERE name = = 1", "line 3"),
        ("SELECT zzzzz FROM people", "people has id, name, city, born"),
        ("SELECT pg_sleep(1)", "function pg_sleep is not offered"),
        ("DELETE FROM people", "not DELETE"),
        ("SELECT 1; SELECT 2", "exactly one statement"),
    ],
)
def test_a_refusal_says_how_to_mend_it(dialect: str, sql: str, hint: str):
    with pytest.raises(ToolError) as refused:
        GUARDS[dialect].check(sql)
    assert hint in str(refused.value)


def test_what_is_hidden_is_answered_as_what_does_not_exist():
    hidden, missing = (_refusal(f"SELECT p.{name} FROM people p") for name in ("salary", "sxlxry"))
    assert hidden.replace("salary", "sxlxry") == missing
    hidden, missing = (_refusal(f"SELECT 1 FROM {name}") for name in ("secrets", "sxcrxts"))
    assert hidden.replace("secrets", "sxcrxts") == missing


def _refusal(sql: str) -> str:
    with pytest.raises(ToolError) as refused:
        GUARDS["postgres"].check(sql)
    return str(refused.value)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_star_is_written_out_as_what_may_be_read(dialect: str):
    for sql in ("SELECT * FROM people", "SELECT p.* FROM people p", "SELECT * FROM (SELECT * FROM people) x"):
        written = GUARDS[dialect].check(sql).sql
        assert "salary" not in written
        assert "*" not in written
        assert all(f'"{column}"' in written for column in PEOPLE)


def test_a_real_column_that_is_called_like_a_pseudo_column_can_be_read():
    guard = Guard(Schema("sqlite", [Table("main", "t", (Column("oid", "text"),))], default="main"))
    assert guard.check("SELECT oid FROM t WHERE oid IS NULL ORDER BY oid").sql
    with pytest.raises(ToolError, match="no column"):
        guard.check("SELECT oid FROM t WHERE rowid = 1")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_natural_join_joins_over_what_may_be_read(dialect: str):
    written = GUARDS[dialect].check("SELECT a.name FROM people a NATURAL JOIN people b").sql
    assert "NATURAL" not in written
    assert '"a"."born" = "b"."born"' in written
    assert "salary" not in written


def test_comments_do_not_run():
    assert GUARDS["postgres"].check("SELECT /* a */ 1 -- b").sql == 'SELECT 1 AS "1"'


def test_sqlite_reads_what_is_no_column_in_double_quotes_as_a_text_also_where_a_hidden_column_is_called_so():
    statement = GUARDS["sqlite"].check('SELECT "salary", name FROM people WHERE city = "Bonn"')
    assert "'salary'" in statement.sql
    assert "'Bonn'" in statement.sql
    assert '"salary"' in statement.notes[0]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from([*FRAGMENTS, "people", "salary", "p", "*", "p.*", "secrets"]), max_size=16
        ).map(" ".join),
    )
)
@settings(deadline=None, max_examples=150)
def test_whatever_is_asked_becomes_a_statement_or_a_refusal_and_no_statement_names_what_is_hidden(
    dialect: str, text: str
):
    for sql in (
        text,
        f"SELECT {text}",
        f"SELECT * FROM people p WHERE {text}",
        f"SELECT {text} FROM people p",
    ):
        try:
            written = GUARDS[dialect].check(sql).sql
        except ToolError:
            continue
        assert '"salary"' not in written.lower().replace(' as "salary"', "")
        assert '"secrets"' not in written.lower().replace(' as "secrets"', "")
        assert GUARDS[dialect].check(written).sql == written


HONEST = [
    "SELECT name FROM people",
    "SELECT DISTINCT city FROM people ORDER BY city DESC LIMIT 3 OFFSET 1",
    "SELECT COUNT(*), AVG(id), MIN(name) FROM people",
    "SELECT city, COUNT(*) AS n FROM people GROUP BY city HAVING COUNT(*) > 1 ORDER BY n DESC, city",
    "SELECT city, COUNT(*) AS n FROM people GROUP BY 1 ORDER BY 2 DESC, 1",
    "SELECT p.name, o.amount FROM people p JOIN orders o ON o.person_id = p.id WHERE o.amount > 10 ORDER BY o.id",
    "SELECT p.name, o.id FROM people AS p LEFT JOIN orders AS o ON p.id = o.person_id AND o.amount > 20 ORDER BY 1, 2",
    "SELECT name FROM people WHERE id IN (SELECT person_id FROM orders) AND NOT city = 'Bonn' ORDER BY name",
    "SELECT name FROM people p WHERE EXISTS (SELECT 1 FROM orders o WHERE o.person_id = p.id) ORDER BY name",
    "SELECT name, (SELECT SUM(o.amount) FROM orders o WHERE o.person_id = p.id) AS total FROM people p ORDER BY name",
    "WITH big AS (SELECT * FROM orders WHERE amount > 10) SELECT COUNT(*) FROM big",
    (
        "WITH a AS (SELECT person_id, SUM(amount) AS t FROM orders GROUP BY person_id), "
        "b AS (SELECT MAX(t) AS m FROM a) "
        "SELECT person_id FROM a, b WHERE t = m"
    ),
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT SUM(i) FROM n",
    "SELECT id FROM people UNION SELECT person_id FROM orders ORDER BY id",
    "SELECT id FROM people EXCEPT SELECT person_id FROM orders",
    "SELECT id FROM people INTERSECT SELECT person_id FROM orders ORDER BY 1",
    "SELECT name, RANK() OVER (ORDER BY id DESC) FROM people ORDER BY 2",
    "SELECT person_id, SUM(amount) OVER (PARTITION BY person_id ORDER BY id) AS s FROM orders ORDER BY id",
    "SELECT id, LAG(amount, 1) OVER w AS l FROM orders WINDOW w AS (ORDER BY id) ORDER BY id",
    "SELECT AVG(amount) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM orders ORDER BY id",
    "SELECT CASE WHEN amount > 20 THEN 'large' ELSE 'small' END AS size, COUNT(*) FROM orders GROUP BY 1 ORDER BY 1",
    "SELECT UPPER(name), LENGTH(city), SUBSTR(name, 1, 2), TRIM(city), REPLACE(name, 'a', 'o') FROM people ORDER BY id",
    "SELECT name || ' in ' || city FROM people WHERE name LIKE 'A%' ORDER BY id",
    "SELECT COALESCE(city, 'nowhere'), NULLIF(name, 'Ada') FROM people ORDER BY id",
    "SELECT name FROM people WHERE city IS NULL OR city IN ('Bonn', 'Rom') ORDER BY name",
    "SELECT id FROM orders WHERE amount BETWEEN 10 AND 30 AND NOT id = 2 ORDER BY id",
    "SELECT ROUND(AVG(id)), ABS(-3), CAST(MAX(amount) AS INTEGER) FROM orders",
    "SELECT COUNT(DISTINCT city), COUNT(city) FROM people",
    "SELECT COUNT(*) FILTER (WHERE amount > 20) FROM orders",
    "SELECT * FROM people p JOIN orders o ON o.person_id = p.id WHERE 1 = 0",
    "SELECT t.n FROM (SELECT COUNT(*) AS n FROM people) AS t",
    "SELECT p.name FROM people p JOIN people q ON p.city = q.city AND p.id < q.id ORDER BY p.name",
    "SELECT 7 / 2, 7 % 3, 2 * (3 + 4), -5",
    "SELECT 'it''s', '\\', '--', '/*', ';', 'ümlaut 中'",
    'SELECT name AS "Name of it" FROM people ORDER BY "Name of it"',
    "SELECT NAME, People.City FROM PEOPLE ORDER BY ID",
    "SELECT p.name FROM people p CROSS JOIN orders o WHERE p.id = o.person_id AND p.id = 1",
]
OWN = {
    "sqlite": [
        "SELECT strftime('%Y', day), COUNT(*) FROM orders GROUP BY 1 ORDER BY 1",
        "SELECT date(day, '+1 month'), julianday(day) - julianday('2024-01-01') FROM orders ORDER BY id",
        "SELECT GROUP_CONCAT(name, ';') FROM people",
        "SELECT iif(amount > 20, 'a', 'b'), typeof(amount), instr(day, '-') FROM orders ORDER BY id",
        "SELECT name FROM people WHERE name GLOB 'A*'",
        'SELECT name FROM people WHERE city = "Bonn"',
    ],
    "postgres": [
        "SELECT EXTRACT(YEAR FROM day), COUNT(*) FROM orders GROUP BY 1 ORDER BY 1",
        "SELECT DATE_TRUNC('month', day), day + INTERVAL '1 month', day::date - 3 FROM orders ORDER BY id",
        "SELECT TO_CHAR(day, 'YYYY-MM') FROM orders ORDER BY id",
        "SELECT STRING_AGG(name, ',' ORDER BY name) FROM people",
        "SELECT DISTINCT ON (person_id) person_id, amount FROM orders ORDER BY person_id, amount DESC",
        "SELECT name FROM people WHERE name ILIKE 'a%' OR name ~ '^B' ORDER BY id",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) FROM orders",
        "(SELECT id FROM people ORDER BY id LIMIT 1)",
        "SELECT amount::numeric(10, 2), id::text FROM orders ORDER BY id NULLS LAST",
    ],
    "duckdb": [
        "SELECT strftime(day, '%Y'), COUNT(*) FROM orders GROUP BY ALL ORDER BY 1",
        "SELECT date_diff('day', day, DATE '2025-01-01'), date_trunc('month', day), year(day) FROM orders ORDER BY id",
        "SELECT person_id, median(amount), arg_max(id, amount) FROM orders GROUP BY person_id ORDER BY 1",
        "SELECT id FROM orders QUALIFY row_number() OVER (PARTITION BY person_id ORDER BY amount DESC) = 1 ORDER BY id",
        "FROM people",
        "SELECT * EXCLUDE (id) FROM people ORDER BY name",
        "SELECT string_agg(name, ',' ORDER BY name), any_value(1) FROM people",
        "SELECT name FROM people WHERE name ILIKE 'a%' OR regexp_matches(name, '^B') ORDER BY id",
    ],
}
