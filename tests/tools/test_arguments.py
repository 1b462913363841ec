"""Arguments as models write them: taken as they are meant, or refused with what would be right."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.arguments import canonical, nearest, parse
from tools.errors import ToolError

SCHEMA = {"properties": {"sql": {"type": "string"}, "limit": {"type": "integer"}}, "required": ["sql"]}


def test_an_object_is_taken_and_no_text_is_an_empty_one():
    assert parse("run_sql", '{"sql": "SELECT 1", "limit": null}', SCHEMA) == {
        "sql": "SELECT 1",
        "limit": None,
    }
    assert parse("list_tables", "", {}) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"sql": "SELECT 1"', r'run_sql are not JSON \(.*\): send one object, \{"sql": "…"\}'),
        ("SELECT 1", "not JSON"),
        ('{"sql": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5_000, "not JSON"),
        ('["SELECT 1"]', "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"sql": "\\ud800"}', "half a character"),
        ('{"sqll": "SELECT 1"}', "no argument 'sqll': did you mean sql?"),
        ('{"zzz": 1}', "there are sql, limit"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_call_is_refused_with_what_would_be_one(text: str, said: str):
    with pytest.raises(ToolError, match=said):
        parse("run_sql", text, SCHEMA)


def test_a_schema_that_says_more_is_allowed_has_the_last_word():
    assert parse("any", '{"more": 1}', {**SCHEMA, "additionalProperties": True}) == {"more": 1}


def test_of_nothing_nothing_is_near():
    assert nearest("x", ()) == "there are none"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.one_of(st.text(), JSON.map(json.dumps)))
def test_any_text_is_arguments_or_is_refused(text: str):
    try:
        arguments = parse("tool", text, {})
    except ToolError:
        return
    assert arguments == json.loads(text or "{}")


@given(st.dictionaries(st.text(), JSON))
def test_equal_arguments_have_one_form(arguments: dict[str, Any]):
    turned = dict(reversed(arguments.items()))
    assert canonical(turned) == canonical(arguments)
    assert canonical(json.loads(json.dumps(arguments, indent=3))) == canonical(arguments)
