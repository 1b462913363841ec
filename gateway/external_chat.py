"""POST /v1/chat/completions for models of other providers: checked, passed on, recorded, answered.

As for agents, the request is recorded before its answer is complete; but there are no token ids to record.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from feedback.events import ExternalCall, Message, RequestFinished, Status
from feedback.outbox import OutboxError
from feedback.store import Key
from gateway.errors import EXPECTED, ApiError, to_api_error
from gateway.external import External, Piece, Reply
from gateway.external_request import ExternalRequest
from gateway.limits.limits import Limits
from gateway.metering import UNSAID_TOKENS, Meter, Used
from gateway.recorder import Recorder
from gateway.sse import frame
from gateway.streaming import EventStream, unless_disconnected
from gateway.telemetry import ModelOutcome, Telemetry
from gateway.timeout import TIMEOUT_HEADER, requested_seconds
from gateway.trace import Trace

_TEXT = 200  # characters of a name that an event takes


class ExternalChat:
    """Answers requests for `external`'s models, and knows those in progress."""

    def __init__(self, external: External, recorder: Recorder, limits: Limits, telemetry: Telemetry) -> None:
        self._external = external
        self._recorder = recorder
        self._limits = limits
        self._telemetry = telemetry
        self._running: set[asyncio.Task[Any]] = set()
        self._ending = False
        self.names = external.names
        self.describe = external.describe

    def answers(self, body: Any) -> bool:
        """Whether this JSON asks for one of these models."""
        return isinstance(body, dict) and body.get("model") in self.names

    async def respond(self, request: Request, caller: Key, asked: ExternalRequest) -> Response:
        """The answer to a checked request. Raises `ApiError`, `OutboxError`, `StoreError`, `ClientDisconnect`."""
        if asked.stream and asked.n not in (None, 1):
            message = (
                "n: several answers of an external model are not streamed. Leave stream out, or ask again."
            )
            raise ApiError(400, message, code="invalid_value", param="n")
        seconds = requested_seconds(request.headers.get(TIMEOUT_HEADER))
        longest = asked.max_completion_tokens or asked.max_tokens or UNSAID_TOKENS
        meter = await Meter.admit(
            self._limits,
            caller,
            asked.model,
            characters=sum(len(message.text()) for message in asked.messages),
            completion=longest * (asked.n or 1),
        )
        exchange = _Exchange(self, request, caller, asked, meter, seconds)
        if asked.stream:
            return _Stream(exchange)
        return await unless_disconnected(request.receive, exchange.whole())

    async def drain(self, seconds: float) -> None:
        """Let what is in progress finish; after `seconds`, end the rest with an error, and record it."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._running:
            left = deadline - asyncio.get_running_loop().time()
            _, late = await asyncio.wait(set(self._running), timeout=max(0.0, left))
            self._ending = bool(late)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def ask(self, asked: ExternalRequest) -> AsyncGenerator[Piece | Reply, None]:
        """See `External.ask`."""
        return self._external.ask(asked.model, asked.sent(), stream=bool(asked.stream))

    async def record(self, event: RequestFinished) -> None:
        """Return when it is on the disk. Raises `OutboxError`."""
        await self._recorder.request(event)

    def tell(self, trace: Trace, outcome: ModelOutcome, asked: ExternalRequest, text: str) -> None:
        """Count the request, and make its span."""
        parameters = asked.model_dump(exclude_none=True)
        self._telemetry.model_finished(trace, outcome, parameters, [text] if text else [])

    def provider(self, name: str) -> str:
        """Who offers a model of ours, as LiteLLM calls them: `openai`, `anthropic`, …"""
        return self._external.configured(name).partition("/")[0]

    def unanswered_policy(self, name: str) -> str:
        """What a failed request is recorded by: who should have answered."""
        return f"{name}@{self._external.configured(name)}"[:_TEXT]

    @contextmanager
    def in_progress(self, model: str) -> Iterator[None]:
        """Count the current task in. Raises `ApiError` in place of the cancellation that a drain is."""
        task = asyncio.current_task()
        assert task is not None, "called from a coroutine"
        self._running.add(task)
        self._telemetry.enter(model)
        try:
            yield
        except asyncio.CancelledError as error:
            if not self._ending:
                raise
            message = "The gateway is being shut down. Retry: another one takes over."
            raise ApiError(503, message, code="shutting_down", retry_after=5) from error
        finally:
            self._running.discard(task)
            self._telemetry.leave(model)


class _Exchange:
    """One request and its answer, of which the end is given out when all has been recorded.

    `seconds` is what the client is ready to wait for the provider; None: as long as that takes.
    """

    def __init__(
        self,
        chat: ExternalChat,
        request: Request,
        caller: Key,
        asked: ExternalRequest,
        meter: Meter,
        seconds: float | None,
    ) -> None:
        self._chat = chat
        self._request = request
        self._caller = caller
        self._asked = asked
        self._meter = meter
        self._seconds = seconds
        self._deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._started = time.perf_counter()
        self._started_ns = time.time_ns()
        self._first: float | None = None
        self._text: list[str] = []
        self._created = int(time.time())

    @property
    def obfuscate(self) -> bool:
        """Whether the chunks are to be filled up: see `gateway.sse.frame`."""
        return bool(self._asked.stream_options and self._asked.stream_options.include_obfuscation)

    async def whole(self) -> Response:
        """The answer in one piece."""
        try:
            with self._chat.in_progress(self._asked.model):
                reply = [part async for part in self._parts()][-1]
        finally:
            self.over()
        assert isinstance(reply, Reply), "the last part is the reply"
        headers = self._headers(reply)
        if reply.cost is not None:
            headers["x-cost-usd"] = f"{reply.cost:.10f}"
        return JSONResponse(self._completion(reply), headers=headers)

    async def chunks(self) -> AsyncGenerator[tuple[dict[str, Any], dict[str, str]], None]:
        """The chunks of a stream, each with the headers that are known by then; those that end it last of all."""
        usage = self._asked.stream_options is not None and self._asked.stream_options.include_usage
        more: dict[str, Any] = {"usage": None} if usage else {}
        ends: list[dict[str, Any]] = []
        with self._chat.in_progress(self._asked.model):
            async with aclosing(self._parts()) as parts:
                async for part in parts:
                    head, headers = self._head("chat.completion.chunk", part), self._headers(part)
                    if isinstance(part, Piece):
                        ends += [choice for choice in part.choices if choice["finish_reason"]]
                        going = [choice for choice in part.choices if not choice["finish_reason"]]
                        if going:
                            yield {**head, "choices": going, **more}, headers
                        continue
                    yield {**head, "choices": ends, **more}, headers
                    if usage:
                        yield {**head, "choices": [], "usage": part.usage}, headers

    async def _parts(self) -> AsyncGenerator[Piece | Reply, None]:
        """What the provider gives; the last is recorded, as is every other end. Raises `ApiError`, `OutboxError`."""
        error, code = "a defect in the gateway: see its log", "internal_error"
        status: Status = "failed"
        reply = None
        asked_at = time.perf_counter()
        try:
            async with aclosing(self._chat.ask(self._asked)) as parts:
                while (part := await self._next(parts)) is not None:
                    if isinstance(part, Reply):
                        reply = part
                        continue
                    if self._first is None:
                        self._first = time.perf_counter()
                        self._request.state.waited = self._first - asked_at
                    self._text += [choice["delta"].get("content") or "" for choice in part.choices[:1]]
                    yield part
        except ApiError as refusal:
            error, code = f"{refusal.code}: {refusal.message}", refusal.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            status, error = "cancelled", "the client went away or the gateway was shut down"
            code = status
            raise
        finally:
            waited = time.perf_counter() - asked_at
            self._request.state.waited = waited
            self._meter.settle(_used(reply) if reply or status == "failed" else None)
            await self._record(self._event(reply, status, error), reply, code, waited)
        assert reply is not None, "the iterator ends with the reply or raises"
        yield reply

    async def _next(self, parts: AsyncGenerator[Piece | Reply, None]) -> Piece | Reply | None:
        limit = asyncio.timeout_at(self._deadline)
        try:
            async with (
                limit
            ):  # never across a yield: it would cancel the consumer, wherever that waits (PEP 789)
                return await anext(parts, None)
        except TimeoutError as error:
            if not limit.expired():
                raise
            message = f"No whole answer within {self._seconds:g} s (the client's limit)."
            raise ApiError(504, message, code="timeout") from error

    def over(self) -> None:
        """Take the estimate, if it never came to asking: the client was gone before."""
        self._meter.settle(None)

    async def _record(self, event: RequestFinished, reply: Reply | None, code: str, waited: float) -> None:
        """Return when it is on the disk, and told. Raises `OutboxError`."""
        error = None if reply else code
        try:
            await self._chat.record(event)
        except OutboxError:
            error = "storage_full"
            raise
        finally:
            used = _used(reply)
            outcome = ModelOutcome(
                event.request_id,
                event.episode_id,
                "chat",
                event.agent,
                event.policy,
                event.status,
                self._started_ns,
                time.perf_counter() - self._started,
                waited,
                self._first and self._first - self._started,
                used.prompt,
                used.completion,
                tuple(str(choice["finish_reason"]) for choice in reply.choices) if reply else (),
                error,
                self._chat.provider(event.agent),
            )
            self._chat.tell(self._request.state.trace, outcome, self._asked, event.output or "")

    def _headers(self, part: Piece | Reply) -> dict[str, str]:
        return {"x-policy": _policy(part).encode("ascii", "replace").decode(), **self._meter.headers}

    def _completion(self, reply: Reply) -> dict[str, Any]:
        return {**self._head("chat.completion", reply), "choices": reply.choices, "usage": reply.usage}

    def _head(self, kind: str, part: Piece | Reply) -> dict[str, Any]:
        return {
            "id": self._request.state.request_id,
            "object": kind,
            "created": self._created,
            "model": self._asked.model,
            "system_fingerprint": _policy(part),
        }

    def _event(self, reply: Reply | None, status: Status, error: str) -> RequestFinished:
        now = time.perf_counter()
        asked = self._asked
        text = "".join(self._text)
        calls: tuple[ExternalCall, ...] = ()
        if reply is not None:
            text = reply.choices[0]["message"]["content"] or "" if reply.choices else ""
            call = ExternalCall(
                model=reply.model,
                provider_model=reply.provider_model,
                request=asked.model_dump(exclude_none=True),
                response=self._completion(reply),
                finish_reason=str(reply.choices[0]["finish_reason"]) if reply.choices else "",
                time_to_first_token=self._first and self._first - self._started,
                latency=now - self._started,
            )
            calls = (call,)
        return RequestFinished(
            tenant=self._caller.tenant,
            request_id=self._request.state.request_id,
            episode_id=self._request.state.episode_id,
            trace_id=self._request.state.trace.trace_id,
            agent=asked.model,
            policy=_policy(reply) if reply else self._chat.unanswered_policy(asked.model),
            caller=self._caller.owner,
            input=tuple(Message(role=message.role, content=message.text()) for message in asked.messages),
            output=text if reply or text else None,
            status="completed" if reply else status,
            error=None if reply else error,
            calls=calls,
            metadata=asked.recorded_metadata(),
            cost=reply.cost if reply else None,
            latency=now - self._started,
        )


class _Stream(EventStream):
    """Server-sent events. An error before the first byte is an ordinary response; after it, an event that ends all."""

    def __init__(self, exchange: _Exchange) -> None:
        super().__init__({})
        self._exchange = exchange

    async def _over(self) -> None:
        self._exchange.over()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with aclosing(self._exchange.chunks()) as chunks:
                async for chunk, headers in chunks:
                    if not started:
                        started = True
                        self.headers.update(headers)
                        await send(
                            {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                        )
                    body = frame(chunk, obfuscate=self._exchange.obfuscate)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        except EXPECTED as error:
            problem = to_api_error(error)
            if not started:
                await problem.response()(scope, receive, send)
                return
            end = frame(problem.body())
        else:
            end = b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": end, "more_body": False})


def _used(reply: Reply | None) -> Used:
    if reply is None:  # refused or failed: nobody has counted, and mostly there is nothing to pay
        return Used(0, 0)
    money = None if reply.cost is None else round(reply.cost * 1e6)
    return Used(reply.usage["prompt_tokens"], reply.usage["completion_tokens"], money)


def _policy(part: Piece | Reply) -> str:
    return f"{part.model}@{part.provider_model}"[:_TEXT]
