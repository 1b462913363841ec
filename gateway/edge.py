"""The outermost layer, plain ASGI: ids on every answer, a limit on what runs at once, a last resort for defects."""

import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.events import new_id
from gateway.errors import ApiError, head_too_large, internal_error
from gateway.telemetry import Telemetry

AGENT_PATH = "/v1/chat/completions"
RESPONSES_PATH = "/v1/responses"
_ID_PREFIXES = {AGENT_PATH: "chatcmpl-", RESPONSES_PATH: "resp_"}
OVERHEAD = "x-flywheel-overhead-ms"
_EPISODE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_log = logging.getLogger(__name__)


class Edge:
    """Wraps the application. Handlers find `request_id`, `trace` and, for agents, `episode_id` in `request.state`.

    They leave `waited` there before they answer: the seconds that went to model servers and tools. What the client is
    told of the rest is what the gateway itself took (`OVERHEAD`, in milliseconds), until the answer began.
    """

    def __init__(
        self, app: ASGIApp, *, max_concurrent: int, max_header_bytes: int, telemetry: Telemetry
    ) -> None:
        self._app = app
        self._max_header_bytes = max_header_bytes
        self._telemetry = telemetry
        self._max_concurrent = max_concurrent
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived = time.perf_counter()
        is_agent = scope["path"] in _ID_PREFIXES
        ids = {"x-request-id": new_id(_ID_PREFIXES.get(scope["path"], "req-"))}
        state = scope.setdefault("state", {})
        state["request_id"] = ids["x-request-id"]
        state["trace"] = self._telemetry.begin(ids["x-request-id"], scope["headers"])
        ids["traceparent"] = state["trace"].traceparent
        given = Headers(scope=scope).get("x-episode-id") if is_agent else None
        if is_agent:
            usable = given is not None and _EPISODE_ID.fullmatch(given)
            state["episode_given"] = given is not None
            state["episode_id"] = given if given and usable else new_id("ep-")
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if is_agent:  # read now: a response that continues another joins its episode
                    ids["x-episode-id"] = state["episode_id"]
                    overhead = time.perf_counter() - arrived - state.get("waited", 0.0)
                    ids[OVERHEAD] = f"{1_000 * max(0.0, overhead):.3f}"
                headers = MutableHeaders(scope=message)
                for name, value in ids.items():
                    headers.setdefault(name, value)  # an answer that is replayed has those that it had
            await send(message)

        refusal = self._head_refusal(scope) or (self._refusal(given) if is_agent else None)
        admitted = is_agent and refusal is None
        self._running += admitted
        try:
            if refusal is not None:
                await refusal.response()(scope, receive, send_with_ids)
                return
            await self._app(scope, receive, send_with_ids)
        except Exception:  # noqa: BLE001  # the edge: a defect must be logged with its id and answered without its traceback
            _log.exception(
                "defect while answering %s %s (%s)", scope["method"], scope["path"], ids["x-request-id"]
            )
            if (
                not status
            ):  # else the server closes the connection, and the client sees that the answer is cut short
                await internal_error(ids["x-request-id"]).response()(scope, receive, send_with_ids)
        finally:
            self._running -= admitted
            route = scope["path"] if is_agent else getattr(scope.get("route"), "path", "other")
            self._telemetry.http_finished(scope["method"], route, status, time.perf_counter() - arrived)

    def _head_refusal(self, scope: Scope) -> ApiError | None:
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        return head_too_large(self._max_header_bytes) if size > self._max_header_bytes else None

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
