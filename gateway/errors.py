"""Every way in which a request is refused: one exception → response table, always in the shape of OpenAI's errors.

Business code raises its own exceptions, or `ApiError` where the client is at fault; nothing else writes an error body.
Only a defect reaches the edge (`gateway/edge.py`), which answers 500 with the request id and logs the traceback.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

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
    """An answer that is an error. `message` says what to do about it; `param` names the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole HTTP answer."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def internal_error(request_id: str) -> ApiError:
    """What a client is told about a defect: nothing but how to report it."""
    return ApiError(500, f"The gateway failed. Report this request id: {request_id}", code="internal_error")


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
    HTTPException: _http,
}
EXPECTED = tuple(_TABLE)


def to_api_error(error: Exception) -> ApiError:
    """The answer to one of the `EXPECTED` exceptions."""
    return next(translate for kind, translate in _TABLE.items() if isinstance(error, kind))(error)


def install(app: FastAPI) -> None:
    """Make `app` answer every expected exception by the table."""

    def respond(_: Request, error: Exception) -> JSONResponse:
        return to_api_error(error).response()

    for kind in EXPECTED:
        app.add_exception_handler(kind, respond)
