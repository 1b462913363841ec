"""Arguments of a tool as a model writes them: JSON, or something that was to be JSON."""

import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any

from tools.errors import ToolError


def parse(tool: str, text: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments; no text at all is none. Raises `ToolError`, which says what is wrong, and what would be right.

    `parameters` is the tool's JSON schema. Only names are checked against it: of the values, the tool knows more.
    """
    try:
        arguments = json.loads(text or "{}", parse_constant=_no_constant)
        if not isinstance(arguments, dict):
            raise ToolError(f"the arguments of {tool} must be a JSON object: {_form(parameters)}")
        canonical(arguments).encode()
    except UnicodeEncodeError as error:
        raise ToolError(f"the arguments of {tool} hold half a character (a lone surrogate)") from error
    except (ValueError, RecursionError) as error:
        message = f"the arguments of {tool} are not JSON ({error}): send one object, {_form(parameters)}"
        raise ToolError(message) from error
    known = parameters.get("properties", {})
    if "additionalProperties" not in parameters:
        for name in arguments.keys() - known.keys():
            raise ToolError(f"{tool} takes no argument {name!r}: {nearest(name, known)}")
    return arguments


def canonical(arguments: Mapping[str, Any]) -> str:
    """The same text for equal arguments, however they were written."""
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True)


def nearest(name: str, known: Collection[str]) -> str:
    """What was probably meant, or all that there is."""
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(known)}" if known else "there are none"


def _form(parameters: Mapping[str, Any]) -> str:
    """An object in the tool's form, with the required names."""
    names = parameters.get("required") or list(parameters.get("properties", {}))[:1]
    return json.dumps(dict.fromkeys(names, "…"), ensure_ascii=False)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
