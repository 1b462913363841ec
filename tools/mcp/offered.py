"""What a server says of a tool goes into prompts: bounded, checked, and recognised by a digest."""

import hashlib
import json
import re
from typing import Any

from mcp_types import Tool

from tools.content import as_content
from tools.mcp.options import McpError

_NAME = 64  # characters, of a function's name in OpenAI's API
_DESCRIPTION = 2_000  # characters
_SCHEMA = 16_384  # characters
_DEPTH = 16
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9_-]")


def function_name(server: str, tool: str) -> str:
    """`server__tool`, as models may call it. Where that would not do, a digest keeps it apart from all others."""
    name = f"{server}__{tool}"
    safe = _PLAIN_NAME.sub("_", name)
    if safe == name and len(name) <= _NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{safe[: _NAME - 9]}_{digest}"


def digest(tool: Tool) -> str:
    """What stands for the tool as it was approved: its name, description and schema."""
    told = json.dumps([tool.name, tool.description, tool.input_schema], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def check(where: str, tool: Tool) -> None:
    """Refuse a tool that must not stand in a prompt. Raises `McpError`; `where` names it."""
    description, schema = tool.description or "", json.dumps(tool.input_schema, ensure_ascii=False)
    if len(description) > _DESCRIPTION:
        raise McpError(
            f"{where}: its description has {len(description)} characters, {_DESCRIPTION} are taken"
        )
    if len(schema) > _SCHEMA or _depth(tool.input_schema) > _DEPTH:
        raise McpError(
            f"{where}: its schema is beyond {_SCHEMA} characters or {_DEPTH} levels: do not offer it"
        )
    if tool.input_schema.get("type") != "object":
        raise McpError(f"{where}: its schema is not that of an object")
    if any(not reference.startswith("#") for reference in _references(tool.input_schema)):
        raise McpError(f"{where}: its schema refers to another document")
    for text in (description, schema):
        # What would have to be defused in a result has no honest place in a description.
        if _CONTROL.search(text) or text not in as_content(text, where):
            raise McpError(f"{where}: its description or schema holds what speaks to a chat template")


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        deepest = max(deepest, depth)
        children = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting += [(child, depth + 1) for child in children]
    return deepest


def _references(value: Any) -> list[str]:
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            found += [item[key] for key in ("$ref", "$dynamicRef") if isinstance(item.get(key), str)]
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found
