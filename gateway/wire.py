"""From the bytes of a request to a checked object, or a 400 that says what is wrong with them.

orjson parses strictly: NaN, lone surrogates and invalid UTF-8 are no JSON. Depth is bounded because everything behind
(validation, serialising) recurses; NUL is refused because databases do not store it in text.
"""

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from gateway.errors import ApiError

MAX_DEPTH = 32
_DISCARD = 16  # times the limit: read on that far, so that the client hears the 413 and not a broken pipe


class Body(BaseModel):
    """A request body: unknown fields and wrong types are errors, never dropped or converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


B = TypeVar("B", bound=Body)


async def read(request: Request, kind: type[B], max_bytes: int) -> B:
    """The body of `request` as a `kind`. Raises `ApiError` (400, 413)."""
    return parse(await read_body(request.receive, max_bytes), kind)


def parse(data: bytes, kind: type[B]) -> B:
    """A JSON object as a `kind`. Raises `ApiError` (400)."""
    try:
        return kind.model_validate(load(data))
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False)[0], kind) from error


def load(data: bytes) -> Any:
    """The JSON in a body. Raises `ApiError` (400)."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            400, f"The body is not valid JSON: {error}. Send a JSON object.", code="invalid_json"
        ) from error
    # As few brackets as that cannot nest too deeply, and a NUL can only be written as an escape: most need no walk.
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH or b"\\u0000" in data:
        _check(value)
    return value


async def read_body(receive: Receive, limit: int) -> bytes:
    """All of a body. Raises `ApiError` (413), `ClientDisconnect`."""
    chunks: list[bytes] = []
    size = 0
    more = True
    while more and size <= _DISCARD * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
    if size > limit:
        text = f"The body is larger than {limit} bytes. Send less."
        raise ApiError(413, text, code="request_too_large")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check(value: Any) -> None:
    """Refuse what nests too deeply or holds a NUL. Walks with a list, not by recursion."""
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise ApiError(
                    400, "The body holds a NUL character (\\u0000). Remove it.", code="invalid_value"
                )
        elif isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise ApiError(
                    400, f"The body nests deeper than {MAX_DEPTH} levels. Flatten it.", code="invalid_json"
                )
            children = [*item, *item.values()] if isinstance(item, dict) else item
            waiting += [(child, depth + 1) for child in children]


def _refusal(error: ErrorDetails, kind: type[Body]) -> ApiError:
    param = ".".join(map(str, error["loc"])) or None
    if error["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields) if len(error["loc"]) == 1 else "see /docs"
        message = f"Unknown or unsupported parameter: {param}. Remove it. Supported: {known}."
        return ApiError(400, message, code="unknown_parameter", param=param)
    if error["type"] == "missing":
        return ApiError(400, f"Missing parameter: {param}.", code="missing_required_parameter", param=param)
    message = f"{param or 'body'}: {error['msg'].removeprefix('Value error, ')}."
    return ApiError(400, message, code="invalid_value", param=param)
