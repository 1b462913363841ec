"""Who answers: the first to see a body. Requests to plain models stay here; all others go on to FastAPI's routes.

Plain ASGI, inside `gateway.edge`, which makes the ids. What a request costs here is measured by `make bench-gateway`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.store import Key
from gateway.auth import Auth
from gateway.config import GatewayConfig
from gateway.errors import EXPECTED, to_api_error
from gateway.idempotency import HEADER, Idempotency, ends_with_done, whole
from gateway.limits.limits import Limits
from gateway.metering import Meter
from gateway.passthrough.capture import Capture
from gateway.passthrough.connections import Connections
from gateway.passthrough.exchange import Capturing, Exchange
from gateway.passthrough.record import Known
from gateway.passthrough.request import ENDPOINTS, Asked, Endpoint, prepare, size
from gateway.pool import Pool
from gateway.recorder import Recorder
from gateway.telemetry import Telemetry
from gateway.timeout import TIMEOUT_HEADER, requested_seconds
from gateway.wire import load, read_body

_LOOK_SECONDS = 0.05
_IDEMPOTENCY, _TIMEOUT = HEADER.encode(), TIMEOUT_HEADER.encode()


class Passthrough:
    """What answers for plain models. `policies`: the immutable policy behind each name that may be asked for."""

    def __init__(
        self,
        pool: Pool,
        recorder: Recorder | None,
        *,
        auth: Auth,
        idempotency: Idempotency,
        limits: Limits,
        telemetry: Telemetry,
        policies: Mapping[str, str],
        config: GatewayConfig,
    ) -> None:
        self.policies = policies
        self._pool = pool
        self._connections = {replica: Connections(replica.url) for replica in pool.replicas}
        self._recorder = recorder
        self._as_asked = None if recorder is None else Capture
        self._auth = auth
        self._idempotency = idempotency
        self._limits = limits
        self._telemetry = telemetry
        self._config = config
        self._running: set[Exchange] = set()

    def answers(self, body: Any) -> bool:
        """Whether this JSON asks for a plain model."""
        model = body.get("model") if isinstance(body, dict) else None
        return isinstance(model, str) and model in self.policies

    async def answer(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """Answer, if the request is for a plain model; else return its body, unanswered. Raises `EXPECTED`."""
        headers = dict(scope["headers"])
        caller = await self._auth.admit(headers.get(b"authorization", b""), "invoke")
        data = await read_body(receive, self._config.max_body_bytes)
        body = load(data, self._config.bounds)
        model = body.get("model") if isinstance(body, dict) else None
        if not isinstance(model, str) or model not in self.policies:
            return data
        check = partial(prepare, endpoint, body)
        begin = partial(self._begin, scope, headers, caller, model, check, self._as_asked)
        if _IDEMPOTENCY not in headers:
            exchange = await begin()
            await self._run(exchange, scope, receive, send)
            return None

        async def kept() -> Response:
            exchange = await begin()
            return _Exchanged(partial(self._run, exchange), exchange.headers)

        complete = ends_with_done if body.get("stream") else whole
        request = Request(scope, receive)
        response = await self._idempotency.once(request, caller, data, kept, complete=complete)
        await response(scope, receive, send)
        return None

    async def respond(
        self, request: Request, caller: Key, model: str, asked: Asked, form: Capturing
    ) -> Response:
        """As `answer`, to a request for a plain model that has been checked already. Raises `ApiError`, `StoreError`.

        `form` captures the answer, and puts it into the client's form, whether or not it is to be recorded.
        """
        scope = request.scope
        exchange = await self._begin(scope, dict(scope["headers"]), caller, model, lambda: asked, form)
        return _Exchanged(partial(self._run, exchange), exchange.headers)

    async def _begin(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        caller: Key,
        model: str,
        check: Callable[[], Asked],
        capturing: Capturing | None,
    ) -> Exchange:
        started, started_ns = time.perf_counter(), time.time_ns()
        given = headers.get(_TIMEOUT)
        seconds = requested_seconds(None if given is None else given.decode("latin-1"))
        asked = check()
        asked.upstream["model"] = self._config.base_model
        characters, completion = size(asked)
        meter = await Meter.admit(self._limits, caller, model, characters=characters, completion=completion)
        state = scope["state"]
        known = Known(
            request_id=state["request_id"],
            episode_id=state["episode_id"],
            trace=state["trace"],
            model=model,
            policy=self.policies[model],
            caller=caller,
            asked=asked,
            started=started,
            started_ns=started_ns,
        )
        most = self._config.plain_seconds
        return Exchange(
            known,
            self._connections,
            self._pool,
            self._recorder,
            capturing=capturing,
            meter=meter,
            telemetry=self._telemetry,
            seconds=most if seconds is None else min(seconds, most),
        )

    async def _run(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        self._running.add(exchange)
        try:
            await exchange.run(scope, receive, send)
        finally:
            self._running.discard(exchange)

    async def run(self) -> None:
        """Look after what is in progress, until cancelled: one timer for all requests, not two for each."""
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                now = time.perf_counter()
                for exchange in tuple(self._running):
                    exchange.look(now)
        finally:
            for connections in self._connections.values():
                connections.close()

    async def drain(self, seconds: float) -> None:
        """Let what is in progress finish; after `seconds`, end the rest with an error, and let it be recorded."""
        deadline = time.perf_counter() + seconds
        while self._running:
            if time.perf_counter() >= deadline:
                for exchange in tuple(self._running):
                    exchange.end()
            await asyncio.sleep(_LOOK_SECONDS)


class HotPath:
    """The middleware. The application's lifespan has put a gateway with a `Passthrough` into its state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        endpoint = ENDPOINTS.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        passthrough: Passthrough = scope["app"].state.gateway.passthrough
        try:
            body = await passthrough.answer(endpoint, scope, receive, send)
        except EXPECTED as error:
            await to_api_error(error).response()(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _again(body, receive), send)


class _Exchanged(Response):
    """An exchange in the form in which an answer is kept for its Idempotency-Key, or made in the background."""

    def __init__(self, run: ASGIApp, headers: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self.raw_headers = [*headers]
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        await self._run(scope, receive, send)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever comes."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
