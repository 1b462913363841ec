"""From the bytes of a request to a checked object, or a 400 that says what is wrong with them.

orjson parses strictly: NaN, lone surrogates and invalid UTF-8 are no JSON. Depth is bounded because everything behind
(validation, serialising) recurses; NUL is refused because databases do not store it in text.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from starlette.requests import Request

from gateway.errors import ApiError

MAX_DEPTH = 32
_UNSUPPORTED = "unsupported_parameter"
_DISCARD = 16  # times the limit: read on that far, so that the client hears the 413 and not a broken pipe


class Refused(NamedTuple):
    """Why a field of OpenAI's cannot be honoured, and the values that ask for nothing and are therefore taken."""

    why: str
    harmless: tuple[Any, ...] = ()


class Body(BaseModel):
    """A request body: unknown fields and wrong types are errors, never dropped or converted.

    `REFUSED` are the fields that exist in OpenAI's API and not here. Null says the same as leaving such a field out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    REFUSED: ClassVar[Mapping[str, Refused]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        if not cls.REFUSED or not isinstance(value, dict):
            return value
        for name, refused in cls.REFUSED.items():
            given = value.get(name)
            if given is not None and not any(_same(given, harmless) for harmless in refused.harmless):
                raise PydanticCustomError(_UNSUPPORTED, "{why}", {"param": name, "why": refused.why})
        return {name: item for name, item in value.items() if name not in cls.REFUSED}


def _same(given: Any, value: Any) -> bool:
    return bool(given == value) and isinstance(given, bool) == isinstance(value, bool)


B = TypeVar("B", bound=Body)


async def read(request: Request, kind: type[B], max_bytes: int) -> B:
    """The body of `request` as a `kind`. Raises `ApiError` (400, 413)."""
    return parse(await _bytes(request, max_bytes), kind)


def read_query(request: Request, kind: type[B]) -> B:
    """The query of `request` as a `kind`; a list is `name=a&name=b` or `name[]=a&…`. Raises `ApiError` (400)."""
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        plain = name.removesuffix("[]")
        if _is_list(kind, plain):
            given.setdefault(plain, []).append(value)
        elif name in given:
            raise ApiError(400, f"{name}: sent twice. Send it once.", code="invalid_value", param=name)
        else:
            given[name] = value
    try:
        return kind.model_validate_strings(given, strict=False)  # text is all that a query has
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False)[0], kind) from error


def _is_list(kind: type[Body], name: str) -> bool:
    return name in kind.model_fields and isinstance(kind.model_fields[name].default, tuple)


def parse(data: bytes, kind: type[B]) -> B:
    """A JSON object as a `kind`. Raises `ApiError` (400)."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            400, f"The body is not valid JSON: {error}. Send a JSON object.", code="invalid_json"
        ) from error
    _check(value)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False)[0], kind) from error


async def _bytes(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > _DISCARD * limit:
            break
    if size > limit:
        message = f"The body is larger than {limit} bytes. Send less."
        raise ApiError(413, message, code="request_too_large")
    return b"".join(chunks)


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
    if error["type"] == _UNSUPPORTED:
        param = ".".join(map(str, (*error["loc"], error["ctx"]["param"])))
        return ApiError(
            400, f"{param} is not supported here: {error['msg']}.", code=_UNSUPPORTED, param=param
        )
    if error["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields) if len(error["loc"]) == 1 else "see /docs"
        message = f"Unknown or unsupported parameter: {param}. Remove it. Supported: {known}."
        return ApiError(400, message, code="unknown_parameter", param=param)
    if error["type"] == "missing":
        return ApiError(400, f"Missing parameter: {param}.", code="missing_required_parameter", param=param)
    message = f"{param or 'body'}: {error['msg'].removeprefix('Value error, ')}."
    return ApiError(400, message, code="invalid_value", param=param)
