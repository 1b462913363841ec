"""The outermost layer, plain ASGI: ids on every answer, a limit on what runs at once, a last resort for defects."""

import logging
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.events import new_id
from gateway.errors import ApiError, internal_error

AGENT_PATH = "/v1/chat/completions"
_ID_PREFIXES = {
    AGENT_PATH: "chatcmpl-",
    "/v1/completions": "cmpl-",
    "/v1/embeddings": "embd-",
}  # what models answer
_EPISODE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_log = logging.getLogger(__name__)


class Edge:
    """Wraps the application. Handlers find `request_id`, and where models answer `episode_id`, in `request.state`."""

    def __init__(self, app: ASGIApp, *, max_concurrent: int) -> None:
        self._app = app
        self._max_concurrent = max_concurrent
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix = _ID_PREFIXES.get(scope["path"])
        is_model = prefix is not None
        request_id = new_id(prefix or "req-")
        ids = [(b"x-request-id", request_id.encode())]
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        given = _given_episode(scope) if is_model else None
        if is_model:
            usable = given is not None and _EPISODE_ID.fullmatch(given)
            state["episode_id"] = episode_id = given if given and usable else new_id("ep-")
            ids.append((b"x-episode-id", episode_id.encode()))
        started = False

        async def send_with_ids(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *ids]
            await send(message)

        refusal = self._refusal(given) if is_model else None
        if refusal is not None:
            await refusal.response()(scope, receive, send_with_ids)
            return
        self._running += is_model
        try:
            await self._app(scope, receive, send_with_ids)
        except Exception:  # noqa: BLE001  # the edge: a defect must be logged with its id and answered without its traceback
            _log.exception("defect while answering %s %s (%s)", scope["method"], scope["path"], request_id)
            if (
                not started
            ):  # else the server closes the connection, and the client sees that the answer is cut short
                await internal_error(request_id).response()(scope, receive, send_with_ids)
        finally:
            self._running -= is_model

    def _refusal(self, episode_id: str | None) -> ApiError | None:
        if episode_id is not None and not _EPISODE_ID.fullmatch(episode_id):
            message = "x-episode-id must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : -"
            return ApiError(400, message, code="invalid_value", param="x-episode-id")
        if self._running >= self._max_concurrent:
            message = (
                f"{self._running} requests are in progress, which is the limit. Retry after the given time."
            )
            return ApiError(429, message, code="too_many_requests", retry_after=1)
        return None


def _given_episode(scope: Scope) -> str | None:
    values = [value for name, value in scope["headers"] if name == b"x-episode-id"]
    return values[0].decode("latin-1") if values else None
