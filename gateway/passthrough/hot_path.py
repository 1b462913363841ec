"""Who answers: the first to see a body. Requests to plain models stay here; all others go on to FastAPI's routes.

Plain ASGI, inside `gateway.edge`, which makes the ids. What a request costs here is measured by `make bench-gateway`.
"""

import asyncio
import math
import time
from collections.abc import Mapping

import aiohttp
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import Auth
from gateway.errors import EXPECTED, ApiError, to_api_error
from gateway.passthrough.exchange import Exchange
from gateway.passthrough.record import Known
from gateway.passthrough.request import ENDPOINTS, Endpoint, prepare
from gateway.pool import Pool
from gateway.recorder import Recorder
from gateway.trace import trace_id
from gateway.wire import load, read_body

_LOOK_SECONDS = 0.05
TIMEOUT_HEADER = "x-request-timeout"  # seconds, as a decimal number


class Passthrough:
    """What answers for plain models. `policies`: the immutable policy behind each name that may be asked for."""

    def __init__(
        self,
        auth: Auth,
        session: aiohttp.ClientSession,
        pool: Pool,
        recorder: Recorder | None,
        *,
        policies: Mapping[str, str],
        served_name: str,
        max_body_bytes: int,
        seconds: float,
    ) -> None:
        self.policies = policies
        self._auth = auth
        self._session = session
        self._pool = pool
        self._recorder = recorder
        self._served_name = served_name
        self._max_body_bytes = max_body_bytes
        self._seconds = seconds
        self._running: set[Exchange] = set()
        self._idle = asyncio.Event()

    async def answer(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """Answer, if the request is for a plain model; else return its body, unanswered. Raises `EXPECTED`."""
        started = time.perf_counter()
        headers = _headers(scope)
        caller = await self._auth.admit(headers.get(b"authorization", b""), "invoke")
        data = await read_body(receive, self._max_body_bytes)
        body = load(data)
        model = body.get("model") if isinstance(body, dict) else None
        policy = self.policies.get(model) if isinstance(model, str) else None
        if policy is None:
            return data
        seconds = _seconds(headers.get(TIMEOUT_HEADER.encode()), self._seconds)
        asked = prepare(endpoint, body)
        asked.upstream["model"] = self._served_name
        state = scope["state"]
        known = Known(
            request_id=state["request_id"],
            episode_id=state["episode_id"],
            trace_id=trace_id(headers.get(b"traceparent", b"").decode("latin-1")),
            model=body["model"],
            policy=policy,
            caller=caller,
            asked=asked,
            started=started,
        )
        exchange = Exchange(known, self._session, self._pool, self._recorder, seconds=seconds)
        self._running.add(exchange)
        try:
            await exchange.run(scope, receive, send)
        finally:
            self._running.discard(exchange)
            if not self._running:
                self._idle.set()
        return None

    async def run(self) -> None:
        """Look after what is in progress, until cancelled: one timer for all requests, not two for each."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.perf_counter()
            for exchange in tuple(self._running):
                exchange.look(now)

    async def drain(self) -> None:
        """Return when nothing is in progress: the server has by then cancelled what took too long."""
        while self._running:
            self._idle.clear()
            await self._idle.wait()


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


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever comes."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _seconds(given: bytes | None, most: float) -> float:
    if given is None:
        return most
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{TIMEOUT_HEADER} is the longest time in seconds that the answer may take, e.g. 30."
        raise ApiError(400, message, code="invalid_value", param=TIMEOUT_HEADER)
    return min(seconds, most)
