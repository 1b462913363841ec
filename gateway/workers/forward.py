"""What is the leader's to answer is passed on to it, as it came: policies are moved in one process only."""

import aiohttp
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import EXPECTED, ApiError, to_api_error
from gateway.wire import read_body
from gateway.workers.peers import HOST, LEADER, Peers

_PREFIXES = ("/v1/policies", "/v1/agents/", "/v1/status")
_ASKED = (b"host", b"authorization", b"content-type")
_ANSWERED = ("content-type", "retry-after", "www-authenticate", "allow", "location")


class Forward:
    """Plain ASGI, for workers that do not lead. The application's state holds the gateway."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIXES):
            await self._app(scope, receive, send)
            return
        try:
            data = await read_body(receive, self._max_body_bytes)
            response = await _ask(scope["app"].state.gateway.peers, scope, data)
            scope["state"]["passed_on"] = True  # and counted by who answered
        except EXPECTED as error:
            response = to_api_error(error).response()
        await response(scope, receive, send)


async def _ask(peers: Peers, scope: Scope, data: bytes) -> Response:
    """The leader's answer. Raises `ApiError` (503) when it does not come."""
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name in _ASKED
    ]
    path = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    url = f"{HOST}{path}?{query}" if query else HOST + path
    session = peers.session(LEADER)
    try:
        async with session.request(
            scope["method"], url, data=data or None, headers=headers, allow_redirects=False
        ) as answer:
            kept = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
            return Response(await answer.read(), answer.status, kept)
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        message = (
            "The worker that moves policies does not answer; it is started again by itself. If this was a change, see "
            "GET /v1/policies before you repeat it: it may have been made."
        )
        raise ApiError(503, message, code="leader_unavailable", retry_after=2) from error
