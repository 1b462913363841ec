"""What a worker answers the other workers, on a Unix socket in a folder that only this user can enter.

Whatever is not for workers is a request that one of them passes on as it came, with the caller's own key, which is
asked for here again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import orjson
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import condition
from gateway.state import Gateway
from gateway.workers.board import Picture
from gateway.workers.counter import counted

# Longer than aiohttp keeps a connection (15 s): who closes first must be the one that asks.
_KEEP_SECONDS = 75
_CLOSE_SECONDS = 1
_POLL_SECONDS = 0.1


@asynccontextmanager
async def joined(gateway: Gateway, app: ASGIApp) -> AsyncIterator[None]:
    """Within it this worker is one of several; it begins when the worker knows by what to serve. Alone: nothing."""
    place = gateway.peers.place
    if place.folder is None:
        yield
        return
    config = uvicorn.Config(
        _Private(gateway, app).router,
        uds=str(place.socket(place.number)),
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_SECONDS,
        timeout_graceful_shutdown=_CLOSE_SECONDS,  # nothing of value is in progress when this block ends
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(), name="private socket")
    try:
        while not (server.started and gateway.board.known.is_set()):
            await asyncio.wait({serving}, timeout=_POLL_SECONDS)
            if serving.done():
                await serving  # which says why
            gateway.keeper.suspect()  # it has asked in vain while the leader was starting, too
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({serving})


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the server that clients speak to."""
        yield


class _Private:
    """The routes. `app` is the whole gateway, as clients reach it."""

    def __init__(self, gateway: Gateway, app: ASGIApp) -> None:
        self._gateway = gateway
        self._app = app
        self.router = Router(
            [
                Route("/picture", self._picture, methods=["GET"]),
                Route("/picture", self._told, methods=["POST"]),
                Route("/forget", self._forget, methods=["POST"]),
                Route("/rates", self._rates, methods=["POST"]),
                Route("/condition", self._condition, methods=["GET"]),
                Route("/figures", self._figures, methods=["GET"]),
            ],
            default=self._passed_on,
        )

    async def _picture(self, _: Request) -> Response:
        """A worker starts, or something that it should have is missing: check, and tell."""
        self._gateway.keeper.suspect()
        await self._gateway.board.known.wait()
        return _json(
            {"picture": self._gateway.board.picture(), "problems": self._gateway.keeper.problems or []}
        )

    async def _told(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        await self._gateway.board.taken(Picture.read(body["picture"]), body.get("drained"))
        return _json({})

    async def _forget(self, _: Request) -> Response:
        self._gateway.auth.forget()
        return _json({})

    async def _rates(self, request: Request) -> Response:
        return _json(counted(self._gateway.limits.rates, orjson.loads(await request.body())))

    async def _condition(self, _: Request) -> Response:
        return _json((await condition.condition(self._gateway))._asdict())

    async def _figures(self, _: Request) -> Response:
        return _json(await condition.figures(self._gateway))

    async def _passed_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gateway.board.known.wait()
        await self._app(scope, receive, send)


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
