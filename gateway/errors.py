"""Every way in which a request is refused: one exception → response table, always in the shape of OpenAI's errors.

Business code raises its own exceptions, or `ApiError` where the client is at fault; nothing else writes an error body.
Only a defect reaches the edge (`gateway/edge.py`), which answers 500 with the request id and logs the traceback.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from agents.loop import EpisodeError
from agents.model import ModelError
from feedback.outbox import OutboxError
from feedback.policies import PolicyTransitionError
from feedback.store import StoreError
from gateway.checkpoint import CheckpointError
from gateway.replica import ReplicaError

_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_RELAYED = {400, 429, 502, 503, 504}  # what the model server says to us is not always for the client


class ApiError(Exception):
    """An answer that is an error. `message` says what to do about it; `param` names the field at fault.

    `kind` is OpenAI's `type`, by default that of the status; `headers` go out with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.kind = kind or _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def all_headers(self) -> dict[str, str]:
        """What goes out with it, in whatever shape."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers

    def response(self) -> JSONResponse:
        """The whole HTTP answer."""
        return JSONResponse(self.body(), self.status, self.all_headers())


def internal_error(request_id: str) -> ApiError:
    """What a client is told about a defect: nothing but how to report it."""
    return ApiError(500, f"The gateway failed. Report this request id: {request_id}", code="internal_error")


def head_too_large(limit: int) -> ApiError:
    """What is said to request line and headers beyond the limit, in bytes (RFC 6585, section 5)."""
    message = f"The request's headers are larger than {limit} bytes. Send less."
    return ApiError(431, message, code="request_headers_too_large")


def _episode(error: EpisodeError | ModelError) -> ApiError:
    status = error.status if error.status in _RELAYED else 502
    retry_after = 2 if status in (429, 503) else None
    return ApiError(status, str(error), code=error.code, retry_after=retry_after)


def _outbox(error: OutboxError) -> ApiError:
    message = (
        f"Nothing was recorded, so nothing is answered: the outbox does not take events ({error}). "
        "Free space on the gateway's disk or raise outbox_max_bytes, then retry."
    )
    return ApiError(503, message, code="storage_full", retry_after=30)


def _store(error: StoreError) -> ApiError:
    message = f"The store does not answer ({error}). Retry shortly; recorded events are safe in the outbox."
    return ApiError(503, message, code="store_unavailable", retry_after=5)


def _replica(error: ReplicaError) -> ApiError:
    retry_after = 5 if error.status == 503 else None
    return ApiError(error.status, str(error), code="upstream_unavailable", retry_after=retry_after)


def _parameter(error: RequestValidationError) -> ApiError:
    """A parameter of the path or the query; bodies are read and refused by `gateway.wire`."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    if first["type"] == "missing":
        return ApiError(400, f"Missing parameter: {name}.", code="missing_required_parameter", param=name)
    return ApiError(400, f"{name}: {first['msg']}.", code="invalid_value", param=name)


def _http(error: HTTPException) -> ApiError:
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "http_error")
    return ApiError(error.status_code, f"{error.detail}: see /docs for what there is.", code=code)


_TABLE: dict[type[Exception], Callable[[Any], ApiError]] = {
    ApiError: lambda error: error,
    EpisodeError: _episode,
    ModelError: _episode,
    OutboxError: _outbox,
    StoreError: _store,
    ReplicaError: _replica,
    CheckpointError: lambda error: ApiError(400, str(error), code="invalid_checkpoint", param="path"),
    PolicyTransitionError: lambda error: ApiError(409, str(error), code="policy_state"),
    ClientDisconnect: lambda _: ApiError(499, "The client has gone.", code="client_closed_request"),
    RequestValidationError: _parameter,
    HTTPException: _http,
}
EXPECTED = tuple(_TABLE)


def to_api_error(error: Exception) -> ApiError:
    """The answer to one of the `EXPECTED` exceptions."""
    return next(translate for kind, translate in _TABLE.items() if isinstance(error, kind))(error)


async def in_shape(answer: Awaitable[Response], shape: Callable[[ApiError], Response]) -> Response:
    """The answer; where it is an error, as the clients of another product's API read it."""
    try:
        return await answer
    except EXPECTED as error:
        return shape(to_api_error(error))


def _methods(app: FastAPI, request: Request) -> set[str]:
    """What may be done with the path of a request: each of its methods may be a route of its own."""
    routes = [
        route
        for route in app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    literal = [
        route for route in routes if route.path == request.url.path
    ]  # not what would be its id elsewhere
    return {method for route in literal or routes for method in route.methods or ()}


def install(app: FastAPI) -> None:
    """Make `app` answer every expected exception by the table."""

    def respond(request: Request, error: Exception) -> JSONResponse:
        response = to_api_error(error).response()
        if response.status_code == 405:
            response.headers["allow"] = ", ".join(sorted(_methods(app, request)))
        return response

    for kind in EXPECTED:
        app.add_exception_handler(kind, respond)
