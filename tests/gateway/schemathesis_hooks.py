"""Lets Schemathesis meet what there is: some of the names and ids that it makes up become real ones.

Loaded by the process that Schemathesis runs in (`SCHEMATHESIS_HOOKS`). `REAL_NAMES` says where (`body`, `path`,
`query`) which field has which real values. Only what is a valid
name already is replaced: what is to be refused stays as it is.
"""

import json
import os
import zlib
from typing import Any

import schemathesis

_REAL: dict[str, dict[str, list[str]]] = json.loads(os.environ["REAL_NAMES"])
_ROLES = {"system", "developer", "user", "assistant"}


def _some_real(where: str, values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {name: _real(where, name, value) for name, value in values.items()}


def _real(where: str, name: str, value: Any) -> Any:
    known = _REAL[where].get(name)
    if known is None or not isinstance(value, str) or not 1 <= len(value) <= 100:
        return value
    choice = zlib.crc32(value.encode("utf-8", "replace")) % (len(known) + 1)
    return known[choice] if choice < len(known) else value


def _with_a_question(messages: Any) -> Any:
    """Where all messages have a role, the last is a person's: what a schema cannot say, and all are refused without."""
    if (
        isinstance(messages, list)
        and messages
        and all(isinstance(m, dict) and m.get("role") in _ROLES for m in messages)
    ):
        return [*messages[:-1], {**messages[-1], "role": "user"}]
    return messages


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Called with every body."""
    if isinstance(body, dict) and "messages" in body:
        body = {**body, "messages": _with_a_question(body["messages"])}
    return _some_real("body", body)


@schemathesis.hook
def map_path_parameters(_context: Any, path_parameters: Any) -> Any:
    """Called with the parameters of every path."""
    return _some_real("path", path_parameters)


@schemathesis.hook
def map_query(_context: Any, query: Any) -> Any:
    """Called with every query."""
    return _some_real("query", query)
