"""How large a request may be: what is beyond is refused before anything is done with it.

Sizes of bodies are bounded while they are read (`gateway/wire.py`), sizes of heads in `gateway/http_server.py` and
`gateway/edge.py`. An agent's own limits, in its manifest, are narrower.
"""

from typing import Any

from gateway.config import Bounds
from gateway.errors import ApiError

_LISTS = ("messages", "input")
_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def check(bounds: Bounds, value: Any, data: bytes) -> None:
    """Refuse what is beyond; `value` is the JSON in `data`. Raises `ApiError` (400, 413)."""
    # So few brackets cannot nest too deeply, and a NUL can only be written as an escape: most need no walk.
    brackets = data.count(b"{") + data.count(b"[")
    if brackets > bounds.max_depth or b"\\u0000" in data or len(data) > bounds.max_text_characters:
        _walk(bounds, value)
    if isinstance(value, dict):
        _check_lists(bounds, value)
        _check_tokens(bounds, value)


def _walk(bounds: Bounds, value: Any) -> None:
    """Depth and text. Walks with a list, not by recursion."""
    characters = 0
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            characters += len(item)
            if "\0" in item:
                message = "The body holds a NUL character (\\u0000). Remove it."
                raise ApiError(400, message, code="invalid_value")
        elif isinstance(item, dict | list):
            if depth > bounds.max_depth:
                message = f"The body nests deeper than {bounds.max_depth} levels. Flatten it."
                raise ApiError(400, message, code="invalid_json")
            children = [*item, *item.values()] if isinstance(item, dict) else item
            waiting += [(child, depth + 1) for child in children]
    if characters > bounds.max_text_characters:
        limit = bounds.max_text_characters
        message = f"The body holds {characters} characters of text; at most {limit} are taken. Shorten it."
        raise ApiError(413, message, code="request_too_large")


def _check_lists(bounds: Bounds, body: dict[str, Any]) -> None:
    for name in _LISTS:
        items = body.get(name)
        if isinstance(items, list) and len(items) > bounds.max_messages:
            message = f"{name} has {len(items)} items; at most {bounds.max_messages} are taken. Send fewer."
            raise ApiError(400, message, code="array_above_max_length", param=name)


def _check_tokens(bounds: Bounds, body: dict[str, Any]) -> None:
    n = body.get("n")
    choices = n if isinstance(n, int) and n > 1 else 1
    for name in _TOKENS:
        tokens = body.get(name)
        if isinstance(tokens, int) and tokens * choices > bounds.max_generation_tokens:
            times = f" times n = {choices}" if choices > 1 else ""
            limit = bounds.max_generation_tokens
            message = (
                f"{name} = {tokens}{times} asks for more than the {limit} tokens that a request may have."
            )
            raise ApiError(400, message, code="integer_above_max_value", param=name)
