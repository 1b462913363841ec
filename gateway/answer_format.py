"""`response_format` and `text.format`: whether the form in which an agent answers is the one that a client asks for.

An agent answers by the schema of its manifest: it was trained and evaluated on nothing else. So a client's schema
changes no answer. It is honoured when every answer of the agent is valid by it, and refused when that is not certain.
"""

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from agents.manifest import Agent
from gateway.errors import ApiError

_SAY_NOTHING = {
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "$comment",
}
_OBJECT_WORDS = {"type", "properties", "required", "additionalProperties"}
_MAX_DEPTH = 16
_MAX_STEPS = 1_000


SchemaName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
FormatKind = Literal["text", "json_object", "json_schema"]


def check_format(kind: FormatKind, schema: dict[str, Any] | None, agent: Agent, param: str) -> None:
    """Raises `ApiError` (400) when the agent's answers may not have the form."""
    if kind == "text":
        return
    wanted = {"type": "object"} if kind == "json_object" else schema or {}
    if not covers(wanted, agent.response_schema):
        own = orjson.dumps(agent.response_schema).decode()
        message = (
            f"{agent.name} answers by its own schema, and not every such answer is valid by the one in {param}. "
            f"Leave {param} out, or send a schema that admits whatever this one does: {own}"
        )
        raise ApiError(400, message, code="unsupported_value", param=param)


def covers(wide: Any, narrow: Any) -> bool:
    """Whether every value that is valid by the schema `narrow` is certainly valid by `wide`.

    Understands objects, alternatives, references and plain types. False when it is not so, when a word occurs that it
    does not understand, and when the answer would take too long to find.
    """
    return _Comparison(wide, narrow).covers(wide, narrow, 0)


class _Comparison:
    def __init__(self, wide: Any, narrow: Any) -> None:
        self._wide_root = wide
        self._narrow_root = narrow
        self._steps = 0

    def covers(self, wide: Any, narrow: Any, depth: int) -> bool:
        self._steps += 1  # references can make a small schema stand for an endless one
        if self._steps > _MAX_STEPS or depth > _MAX_DEPTH:
            return False
        wide, narrow = _plain(wide, self._wide_root), _plain(narrow, self._narrow_root)
        if wide is None or narrow is None:
            return False
        if not wide or (wide == narrow and b'"$ref"' not in orjson.dumps(wide)):
            return True
        if set(narrow) == {"anyOf"}:
            return all(self.covers(wide, one, depth + 1) for one in narrow["anyOf"])
        if set(wide) == {"anyOf"}:
            alternatives = wide["anyOf"] if isinstance(wide["anyOf"], list) else ()
            return any(self.covers(one, narrow, depth + 1) for one in alternatives)
        if "type" not in wide or wide["type"] != narrow.get("type"):
            return False
        if wide["type"] == "object":
            return self._covers_object(wide, narrow, depth + 1)
        return set(wide) == {"type"}

    def _covers_object(self, wide: dict[str, Any], narrow: dict[str, Any], depth: int) -> bool:
        if not {*wide, *narrow} <= _OBJECT_WORDS:
            return False
        known, own = wide.get("properties", {}), narrow.get("properties", {})
        others, required = wide.get("additionalProperties", True), wide.get("required", [])
        if not isinstance(known, dict) or not isinstance(required, list):
            return False  # a client's schema need not be one
        if any(name not in narrow.get("required", ()) for name in required):
            return False
        open_end = narrow.get("additionalProperties", True)
        if open_end is not False and not (others is True and set(known) <= set(own)):
            return False
        return all(self.covers(known.get(name, others), schema, depth) for name, schema in own.items())


def _plain(schema: Any, root: Any) -> dict[str, Any] | None:
    """The schema without what says nothing about values, its reference followed. None: nothing is valid, or unclear."""
    for _ in range(_MAX_DEPTH):
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            return None
        plain = {word: value for word, value in schema.items() if word not in _SAY_NOTHING}
        if "$ref" not in plain:
            return plain
        name = str(plain["$ref"]).removeprefix("#/$defs/")
        if set(plain) != {"$ref"} or name == plain["$ref"]:
            return None
        definitions = root.get("$defs")
        schema = definitions.get(name) if isinstance(definitions, dict) else None
    return None
