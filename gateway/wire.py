"""From the bytes of a request to a checked object, or a 400 that says what is wrong with them.

orjson parses strictly: NaN, lone surrogates and invalid UTF-8 are no JSON. Depth is bounded because everything behind
(validation, serialising) recurses; NUL is refused because databases do not store it in text.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from gateway.bounds import check
from gateway.config import Bounds
from gateway.errors import ApiError

_DEFAULT = Bounds()
_UNSUPPORTED = "unsupported_parameter"
_DISCARD = 16  # times the limit: read on that far, so that the client hears the 413 and not a broken pipe


class Refused(NamedTuple):
    """Why a field of OpenAI's cannot be honoured, and the values that ask for nothing and are therefore taken."""

    why: str
    harmless: tuple[Any, ...] = ()


def unsupported(param: str, why: str) -> PydanticCustomError:
    """What a validator raises of a field that cannot be honoured, alone or beside another."""
    return PydanticCustomError(_UNSUPPORTED, "{why}", {"param": param, "why": why})


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
                raise unsupported(name, refused.why)
        return {name: item for name, item in value.items() if name not in cls.REFUSED}


def _same(given: Any, value: Any) -> bool:
    return bool(given == value) and isinstance(given, bool) == isinstance(value, bool)


B = TypeVar("B", bound=Body)


async def read(request: Request, kind: type[B], max_bytes: int, bounds: Bounds = _DEFAULT) -> B:
    """The body of `request` as a `kind`. Raises `ApiError` (400, 413)."""
    return parse(await read_body(request.receive, max_bytes), kind, bounds)


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


def parse(data: bytes, kind: type[B], bounds: Bounds = _DEFAULT) -> B:
    """A JSON object as a `kind`. Raises `ApiError` (400, 413)."""
    return validate(load(data, bounds), kind)


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


def validate(value: Any, kind: type[B]) -> B:
    """What `load` gave, as a `kind`. Raises `ApiError` (400)."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False)[0], kind) from error


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


def _refusal(error: ErrorDetails, kind: type[Body]) -> ApiError:
    param = ".".join(map(str, error["loc"])) or None
    if error["type"] == _UNSUPPORTED:
        param = ".".join(map(str, (*error["loc"], error["ctx"]["param"])))
        return ApiError(
            400, f"{param} is not supported here: {error['msg']}.", code=_UNSUPPORTED, param=param
        )
    if error["type"] == "extra_forbidden":
        known = (
            ", ".join(field.alias or name for name, field in kind.model_fields.items())
            if len(error["loc"]) == 1
            else "see /docs"
        )
        message = f"Unknown or unsupported parameter: {param}. Remove it. Supported: {known}."
        return ApiError(400, message, code="unknown_parameter", param=param)
    if error["type"] == "missing":
        return ApiError(400, f"Missing parameter: {param}.", code="missing_required_parameter", param=param)
    message = f"{param or 'body'}: {error['msg'].removeprefix('Value error, ')}."
    return ApiError(400, message, code="invalid_value", param=param)
