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

from gateway.bounds import check
from gateway.config import Bounds
from gateway.errors import ApiError

_DEFAULT = Bounds()
_DISCARD = 16  # times the limit: read on that far, so that the client hears the 413 and not a broken pipe


class Body(BaseModel):
    """A request body: unknown fields and wrong types are errors, never dropped or converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


B = TypeVar("B", bound=Body)


async def read(request: Request, kind: type[B], max_bytes: int, bounds: Bounds = _DEFAULT) -> B:
    """The body of `request` as a `kind`. Raises `ApiError` (400, 413)."""
    return parse(await read_body(request.receive, max_bytes), kind, bounds)


def parse(data: bytes, kind: type[B], bounds: Bounds = _DEFAULT) -> B:
    """A JSON object as a `kind`. Raises `ApiError` (400, 413)."""
    try:
        return kind.model_validate(load(data, bounds))
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False)[0], kind) from error


def load(data: bytes, bounds: Bounds = _DEFAULT) -> Any:
    """The JSON in a body. Raises `ApiError` (400, 413)."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            400, f"The body is not valid JSON: {error}. Send a JSON object.", code="invalid_json"
        ) from error
    check(bounds, value, data)
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
    return b"".join(chunks)


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
