"""Random queries over what may be read and what may not, in which one name stands for several things at once."""

from hypothesis import strategies as st

COLUMNS = ["id", "name", "city", "person_id"] * 3 + ["salary", "token", "code", "rowid", "row_to_json", "n"]
ALIASES = ["p", "q"] * 4 + ["people", "orders", "secrets", "codes", "salary", "main", "public", "id"]
TABLES = ["people", "orders"] * 6 + ["secrets", "codes", "main.people", "public.people", "p", "q"]
NAMES = [*COLUMNS, *ALIASES]

_column = st.one_of(
    st.sampled_from(["p.id", "p.id", "p.name", "q.id", "id", "name"]),
    st.sampled_from(NAMES),
    st.builds("{}.{}".format, st.sampled_from(ALIASES), st.sampled_from(NAMES)),
)
_leaf = st.one_of(_column, _column, st.sampled_from(["1", "'x'", "'987654'", "NULL"]))


def _expression(inner: st.SearchStrategy[str], select: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("CAST({} AS TEXT)".format, inner),
        st.builds("({} = {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("COALESCE({}, {})".format, inner, inner),
        st.builds("CASE WHEN {} IS NULL THEN 1 ELSE {} END".format, inner, inner),
        st.builds("COUNT(DISTINCT {})".format, inner),
        st.builds("MAX({})".format, inner),
        st.builds("STRING_AGG(DISTINCT CAST({} AS TEXT), ',')".format, inner),
        st.builds("STRING_AGG(CAST({} AS TEXT), ',' ORDER BY {})".format, inner, inner),
        st.builds("RANK() OVER (PARTITION BY {} ORDER BY {})".format, inner, inner),
        st.builds("({} IN ({}, 1))".format, inner, inner),
        st.builds("({} IN ({}))".format, inner, select),
        st.builds("EXISTS ({})".format, select),
        st.builds("({})".format, select),
    )


def _clause(word: str, value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just(""), st.just(""), value.map(f" {word} {{}}".format))


def _select(select: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    expression = st.recursive(_leaf, lambda inner: _expression(inner, select), max_leaves=3)
    output = st.one_of(
        expression,
        st.builds("{} AS {}".format, expression, st.sampled_from(NAMES)),
        st.sampled_from(["*", "p.*"]),
    )
    named = st.builds("{} AS {}".format, st.sampled_from(TABLES), st.sampled_from(ALIASES))
    read = st.one_of(
        named,
        named,
        st.sampled_from(["people p", "orders p", "people q", "people", *TABLES]),
        st.builds("({}) AS {}".format, select, st.sampled_from(ALIASES)),
        st.builds("({} CROSS JOIN {})".format, named, named),
    )
    joined = st.one_of(
        read,
        read,
        read,
        st.builds("{}, {}".format, read, read),
        st.builds("{} JOIN {} ON {}".format, read, read, expression),
        st.builds("{} JOIN {} USING ({})".format, read, read, st.sampled_from(COLUMNS)),
        st.builds("{} NATURAL JOIN {}".format, read, read),
    )
    distinct = st.sampled_from(["", "", "DISTINCT "])
    return st.builds(
        "SELECT {}{} FROM {}{}{}{}{}".format,
        distinct,
        st.lists(output, min_size=1, max_size=3).map(", ".join),
        joined,
        _clause("WHERE", expression),
        _clause("GROUP BY", expression),
        _clause("HAVING", expression),
        _clause("ORDER BY", expression),
    )


_simple = st.builds("SELECT {} AS {} FROM {}".format, _leaf, *map(st.sampled_from, (NAMES, TABLES)))
QUERIES = st.recursive(
    _simple,
    lambda select: st.one_of(
        _select(select),
        _select(select),
        st.builds("WITH {} AS ({}) {}".format, st.sampled_from([*ALIASES, "t"]), select, select),
        st.builds("{} UNION ALL {}".format, select, select),
    ),
    max_leaves=4,
)
"""One query as text."""
