"""A client's schema is honoured when every answer of the agent is valid by it; when in doubt, it is not."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer_format import covers


def _object(required: list[str] | None = None, *, closed: bool = True, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema["required"] = list(properties) if required is None else required
    return {**schema, "additionalProperties": False} if closed else schema


TEXT = {"type": "string"}
SQL, REFUSAL = _object(sql=TEXT), _object(refusal=TEXT)
OWN = {"anyOf": [SQL, REFUSAL]}


@pytest.mark.parametrize(
    "wide",
    [
        {},
        OWN,
        {"type": "object"},
        {"anyOf": [REFUSAL, {"type": "null"}, SQL]},
        {"anyOf": [SQL | {"title": "Sql", "description": "a query"}, REFUSAL], "title": "Answer"},
        {"anyOf": [{"$ref": "#/$defs/S"}, {"$ref": "#/$defs/R"}], "$defs": {"S": SQL, "R": REFUSAL}},
        {"$ref": "#/$defs/A", "$defs": {"A": OWN}},
        _object([], sql=TEXT, refusal=TEXT),
        _object([], sql={"anyOf": [TEXT, {"type": "null"}]}, closed=False),
        {"type": "object", "additionalProperties": TEXT},
    ],
)
def test_a_schema_that_admits_every_answer_is_honoured(wide: dict[str, Any]) -> None:
    assert covers(wide, OWN)


@pytest.mark.parametrize(
    "wide",
    [
        SQL,
        _object(sql=TEXT, refusal=TEXT),  # both are required: no answer has both
        _object([], sql=TEXT),
        _object([], sql={"type": "integer"}, refusal=TEXT),
        _object([], sql={"type": "string", "maxLength": 5}, refusal=TEXT),
        {"type": "object", "maxProperties": 0},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "array"},
        {"not": OWN},
        {"oneOf": [SQL, REFUSAL]},  # not understood, so not certain
        {"$ref": "#/$defs/A"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": "https://example.com/schema"},
        {"anyOf": [SQL, REFUSAL], "type": "object"},
        {"anyOf": 5},
        {"type": {"a": 1}},
        {"type": "object", "properties": 5},
        {"type": "object", "required": [{}]},
        {"$ref": "#/$defs/A", "$defs": 5},
    ],
)
def test_any_other_is_not(wide: dict[str, Any]) -> None:
    assert not covers(wide, OWN)


def test_a_schema_covers_itself_whatever_words_it_uses() -> None:
    own = _object(
        kind={"enum": ["a", "b"]}, amounts={"type": "array", "items": {"type": "number", "minimum": 0}}
    )
    assert covers({"$ref": "#/$defs/A", "$defs": {"A": own}}, own)
    assert not covers(own, {**own, "properties": {**own["properties"], "kind": {"enum": ["a", "b", "c"]}}})


def test_a_schema_that_contains_itself_is_not_followed_for_ever() -> None:
    tree = {"$ref": "#/$defs/T", "$defs": {"T": _object([], next={"$ref": "#/$defs/T"})}}
    assert not covers(tree, tree)


def test_references_that_multiply_are_not_followed_for_ever() -> None:
    references = {f"D{n}": {"anyOf": [{"$ref": f"#/$defs/D{n + 1}"}] * 9} for n in range(15)}
    assert not covers({"$ref": "#/$defs/D0", "$defs": {**references, "D15": {"type": "array"}}}, OWN)


_names = st.sampled_from(["a", "b"])
_schemas = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"type": "integer"}, {"type": "null"}, {"type": "object"}]),
    lambda inner: (
        st.builds(lambda many: {"anyOf": many}, st.lists(inner, min_size=1, max_size=2))
        | st.builds(
            lambda properties, required, rest: {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": rest,
            },
            st.dictionaries(_names, inner, max_size=2),
            st.lists(_names, max_size=2, unique=True),
            st.booleans() | inner,
        )
    ),
    max_leaves=4,
)
_values = st.recursive(
    st.sampled_from(["x", 1, None]), lambda inner: st.dictionaries(_names, inner, max_size=2), max_leaves=3
)


_words = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "anyOf",
    "$ref",
    "$defs",
    "object",
    "#/$defs/a",
]
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(_words),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_words), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(_words), _anything))
def test_what_is_no_schema_is_no_defect(wide: dict[str, Any]) -> None:
    assert covers(wide, OWN) in {True, False}


@given(_schemas, _schemas, _values)
def test_what_is_certain_is_so(wide: dict[str, Any], narrow: dict[str, Any], value: Any) -> None:
    if covers(wide, narrow) and jsonschema.Draft202012Validator(narrow).is_valid(value):
        assert jsonschema.Draft202012Validator(wide).is_valid(value)
