"""One request to a plain model: from the client's connection to vLLM's and back, recorded however it ends.

No task per request and no queue: the request's own task reads from vLLM and writes to the client. A client that leaves,
the time limit and a shutdown all cancel that task, which closes the connection to vLLM and so ends the generation.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from agents.model import ModelError
from agents.vllm import refusal
from feedback.events import Status
from feedback.outbox import OutboxError
from gateway.errors import ApiError, to_api_error
from gateway.metering import Meter, Used
from gateway.passthrough.capture import Capture
from gateway.passthrough.connections import Connection, Connections
from gateway.passthrough.record import Known, encode
from gateway.passthrough.request import prefix
from gateway.pool import Pool
from gateway.recorder import Recorded, Recorder
from gateway.replica import Replica
from gateway.sse import frame
from gateway.telemetry import ModelOutcome, Telemetry

_WATCH_AFTER = 0.05  # seconds; a client that leaves sooner is noticed then
_JSON = (b"content-type", b"application/json")
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

Capturing = Callable[..., Capture]  # of the same arguments as `Capture`

_log = logging.getLogger(__name__)


class Exchange:
    """`run` it once, and `look` after it meanwhile.

    `capturing` makes what collects the answer and puts it into the client's form; None: bytes pass as they are.
    `recorder` None: nothing is recorded.
    """

    def __init__(
        self,
        known: Known,
        connections: Mapping[Replica, Connections],
        pool: Pool,
        recorder: Recorder | None,
        *,
        capturing: Capturing | None,
        meter: Meter,
        telemetry: Telemetry,
        seconds: float,
    ) -> None:
        self._known = known
        self._meter = meter
        self._telemetry = telemetry
        self._connections = connections
        self._pool = pool
        self._recorder = recorder
        self._capturing = capturing
        self._seconds = seconds
        self._capture: Capture | None = None
        self._event: bytes | None = None  # once it is on the disk
        self._interrupted: ApiError | None = None
        self._settled = False  # the outcome is decided: nothing may interrupt any more
        self._started = False  # the client has been sent something
        self._elsewhere = 0.0  # seconds spent waiting for vLLM
        self._state: dict[str, Any] = {}
        self._status: Status = "failed"
        self._error: str | None = "internal_error"
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._receive: Receive | None = None

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and record. Never raises but for a defect."""
        self._task = asyncio.current_task()
        self._receive = receive
        self._state = scope["state"]
        self._telemetry.enter(self._known.model)
        try:
            await self._answer(send)
        except asyncio.CancelledError:
            # A shutdown waits no longer, while the record or the last bytes are on their way: it has to be cut.
            if self._settled or self._task is None:
                raise
            self._task.uncancel()
            await self._fail(self._interrupted or _shutting_down(), scope, receive, send)
        except (ModelError, ApiError, OutboxError) as error:
            await self._fail(to_api_error(error), scope, receive, send)
        finally:
            if self._watcher is not None:
                self._watcher.cancel()
            self._telemetry.leave(self._known.model)
            self._account()

    async def _answer(self, send: Send) -> None:
        """Ask one server after the other until one begins to answer. Raises `ModelError`, `ApiError`, `OutboxError`."""
        body = self._body()
        path = self._known.asked.endpoint.path
        beginning = prefix(self._known.asked) if len(self._pool.replicas) > 1 else b""
        tried: list[Replica] = []
        error: ModelError | None = None
        while True:
            try:
                replica = self._pool.enter(None, beginning, tried)
            except ApiError:
                if (
                    error is not None
                ):  # what the last server said tells more than that there is no further one
                    raise error from None
                raise
            tried.append(replica)
            failed = False
            try:
                await self._ask(self._connections[replica], path, body, send)
                return
            except ConnectionError as problem:
                failed = True
                error = ModelError(f"the model server does not answer ({problem}); try again shortly")
            except ModelError as problem:
                failed = problem.status >= 500
                error = problem
            finally:
                self._pool.leave(replica, failed=failed)
            if self._started or not failed or len(tried) == len(self._pool.replicas):
                raise error

    def _body(self) -> bytes:
        asked = self._known.asked
        if self._capturing is None or not asked.choices:
            return orjson.dumps(asked.upstream)
        # A completion's logprobs say how many alternatives to give: none, unless the client wants some.
        logprobs = True if asked.endpoint.operation == "chat" else asked.upstream.get("logprobs", 0)
        return orjson.dumps({**asked.upstream, "logprobs": logprobs, "return_token_ids": True})

    async def _ask(self, server: Connections, path: str, body: bytes, send: Send) -> None:
        known = self._known
        asked_at = time.perf_counter()
        answer = await server.post(path, body, known.trace.headers())
        try:
            if answer.status != 200:
                raise refusal(answer.status, (await answer.read()).decode(errors="replace"))
            if self._capturing is not None:
                self._capture = self._capturing(
                    known.asked, request_id=known.request_id, model=known.model, policy=known.policy
                )
            if known.asked.stream:
                self._elsewhere += time.perf_counter() - asked_at
                await self._stream(answer, send)
                return
            data = await answer.read()
        finally:
            answer.release()
        self._elsewhere += time.perf_counter() - asked_at
        await self._whole(data, send)

    async def _whole(self, answer: bytes, send: Send) -> None:
        capture = self._capture if self._known.asked.choices else None
        if capture is not None:
            capture.whole(answer)
        await self._record("completed")
        if capture is not None:
            answer = capture.end(self._event)
        headers = [_JSON, (b"content-length", b"%d" % len(answer)), *self._headers()]
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _stream(self, answer: Connection, send: Send) -> None:
        capture = self._capture
        while data := await answer.piece():
            shown = data if capture is None else capture.feed(data)
            if shown:
                if not self._started:
                    await self._start(send)
                await send({"type": "http.response.body", "body": shown, "more_body": True})
        if capture is not None:
            capture.check_complete()
        await self._record("completed")
        last = b"" if capture is None else capture.end(self._event)
        if not self._started:
            await self._start(send)
        await send({"type": "http.response.body", "body": last})

    async def _start(self, send: Send) -> None:
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": [*_STREAM, *self._headers()]})

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Of the answer: who gives it, and what is left of its caller's limits."""
        return ((b"x-policy", self._known.policy.encode()), *self._meter.admission.headers)

    def _headers(self) -> Iterable[tuple[bytes, bytes]]:
        self._state["waited"] = self._elsewhere
        return self.headers

    async def _record(self, status: Status, error: str | None = None) -> None:
        """Return when the outcome is on the disk. Raises `OutboxError`."""
        self._settled = True
        self._status = status
        if status == "completed":
            self._error = None
        if self._capturing is None:
            return
        known = self._known
        event = encode(known, status, error, self._capture)
        if self._recorder is not None:
            about = Recorded(known.caller.tenant, known.model, known.episode_id, known.trace.trace_id)
            await self._recorder.encoded(event, known.request_id, about)
        self._event = event

    async def _fail(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        """Record it, unless recording is what failed, and tell the client: by an event where the answer has begun."""
        self._error = error.code
        if not self._settled:
            gone = self._interrupted is not None and self._interrupted.status == 499
            status: Status = "cancelled" if gone or error.code == "shutting_down" else "failed"
            with suppress(OutboxError):  # logged by the recorder; the client is told of the first error
                await self._record(status, f"{error.code}: {error.message}")
        if not self._started:
            await error.response()(scope, receive, send)
            return
        capture = self._capture
        body = frame(error.body()) if capture is None else capture.failed(error, self._event)
        await send({"type": "http.response.body", "body": body})

    def _account(self) -> None:
        """Settle the limits, and tell the telemetry: the last things that are done for a request."""
        known, capture = self._known, self._capture
        used = Used(0, 0) if self._status == "failed" else None
        if capture is not None and known.asked.choices:
            used = capture.used()
        self._meter.settle(used)
        choices = [] if capture is None else capture.choices
        outcome = ModelOutcome(
            known.request_id,
            known.episode_id,
            known.asked.endpoint.operation,
            known.model,
            known.policy,
            self._status,
            known.started_ns,
            time.perf_counter() - known.started,
            self._elsewhere,
            None if capture is None or capture.first is None else capture.first - known.started,
            used.prompt if used else 0,
            used.completion if used else 0,
            tuple(choice.finish_reason for choice in choices if choice.finish_reason is not None),
            "cancelled" if self._status == "cancelled" else self._error,
        )
        answers = ["".join(choice.text) for choice in choices]
        self._telemetry.model_finished(known.trace, outcome, known.asked.upstream, answers)

    def end(self) -> None:
        """The gateway is being shut down, and waits no longer."""
        self._interrupt(_shutting_down())

    def look(self, now: float) -> None:
        """Called again and again while it runs: has it taken too long, and is the client still there?"""
        age = now - self._known.started
        if age > self._seconds:
            late = ApiError(504, f"No whole answer within {self._seconds:g} s.", code="timeout")
            self._interrupt(late)
        elif self._watcher is None and age > _WATCH_AFTER:
            # A task only for requests that take their time: making it would be most of what a short one costs.
            self._watcher = asyncio.create_task(self._until_gone())

    def _interrupt(self, reason: ApiError) -> None:
        if self._task is not None and not self._settled and self._interrupted is None:
            self._interrupted = reason
            self._task.cancel()

    async def _until_gone(self) -> None:
        assert self._receive is not None
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._interrupt(ApiError(499, "The client has gone, or cancelled it.", code="client_closed_request"))


def _shutting_down() -> ApiError:
    message = "The gateway is being shut down. Retry: another one takes over."
    return ApiError(503, message, code="shutting_down", retry_after=5)
