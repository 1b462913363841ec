"""The outermost layer, plain ASGI: ids on every answer, a limit on what runs at once, a last resort for defects."""

import asyncio
import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.events import new_id
from gateway.errors import ApiError, head_too_large, internal_error
from gateway.telemetry import Telemetry

AGENT_PATH = "/v1/chat/completions"
RESPONSES_PATH = "/v1/responses"
MCP_PATH = "/mcp"
_ID_PREFIXES = {  # of what agents and models answer
    AGENT_PATH: "chatcmpl-",
    RESPONSES_PATH: "resp_",
    "/v1/completions": "cmpl-",
    "/v1/embeddings": "embd-",
    MCP_PATH: "chatcmpl-",  # where an agent is asked, else recorded nowhere
}
_EPISODE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_log = logging.getLogger(__name__)


class Edge:
    """Wraps the application. Handlers find `request_id`, `trace` and, where models answer, `episode_id` in the state.

    Before they answer, they leave there `waited`: the seconds that went to model servers and tools. The client is told
    of the rest, which is what the gateway itself took until the answer began. `lasting` is a task that goes on for the
    request when it has been answered: until its end, the request counts as in progress. `passed_on`: another worker
    answered.
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
        prefix = _ID_PREFIXES.get(scope["path"])
        is_model = prefix is not None
        request_id = new_id(prefix or "req-")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["trace"] = trace = self._telemetry.begin(request_id, scope["headers"])
        ids = [(b"x-request-id", request_id.encode()), (b"traceparent", trace.traceparent.encode())]
        given = _given_episode(scope) if is_model else None
        if is_model:
            usable = given is not None and _EPISODE_ID.fullmatch(given)
            state["episode_given"] = given is not None
            state["episode_id"] = given if given and usable else new_id("ep-")
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if is_model:  # read now: a response that continues another joins its episode
                    ids.append((b"x-episode-id", state["episode_id"].encode()))
                    overhead = time.perf_counter() - arrived - state.get("waited", 0.0)
                    ids.append((b"x-flywheel-overhead-ms", b"%.3f" % max(0.0, 1_000 * overhead)))
                told = {name for name, _ in message["headers"]}  # an answer that is replayed has its own ids
                message["headers"] = [*message["headers"], *(pair for pair in ids if pair[0] not in told)]
            await send(message)

        refusal = self._head_refusal(scope) or (self._refusal(given) if is_model else None)
        admitted = is_model and refusal is None
        self._running += admitted
        try:
            if refusal is not None:
                await refusal.response()(scope, receive, send_with_ids)
                return
            await self._app(scope, receive, send_with_ids)
        except Exception:  # noqa: BLE001  # the edge: a defect must be logged with its id and answered without its traceback
            _log.exception("defect while answering %s %s (%s)", scope["method"], scope["path"], request_id)
            if (
                not status
            ):  # else the server closes the connection, and the client sees that the answer is cut short
                await internal_error(request_id).response()(scope, receive, send_with_ids)
        finally:
            if admitted:
                self._leave(state.get("lasting"))
            self._count(scope, status, time.perf_counter() - arrived)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        if not scope["state"].get("passed_on"):
            route = path if path in _ID_PREFIXES else getattr(scope.get("route"), "path", "other")
            self._telemetry.http_finished(scope["method"], route, status, seconds)

    def _leave(self, lasting: asyncio.Task[None] | None) -> None:
        if lasting is None:
            self._running -= 1
        else:
            lasting.add_done_callback(lambda _: self._leave(None))

    def _head_refusal(self, scope: Scope) -> ApiError | None:
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size > self._max_header_bytes:
            return head_too_large(self._max_header_bytes)
        if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:  # as in bodies: see `gateway.wire`
            return ApiError(400, "The URL holds a NUL character (%00). Remove it.", code="invalid_value")
        return None

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
