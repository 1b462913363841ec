"""The least that a gateway in this stack can do: ASGI in, aiohttp out, bytes as they come; no key, no look at a body.

`UPSTREAM=http://… uvicorn bench.gateway.bare:app`
"""

import os
from typing import Any

import aiohttp

URL = os.environ.get("UPSTREAM", "http://127.0.0.1:8081")
Session = aiohttp.ClientSession


class Bare:
    """An ASGI application."""

    session: Session

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {"content-type": "application/json"}
        async with self.session.request(
            scope["method"], URL + scope["path"], data=body, headers=headers
        ) as answer:
            kept = [(name, answer.headers[name].encode()) for name in ("content-type",)]
            head = [(name.encode(), value) for name, value in kept]
            await send({"type": "http.response.start", "status": answer.status, "headers": head})
            async for data in answer.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self.session = Session(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.session.close()
        await send({"type": "lifespan.shutdown.complete"})


app = Bare()
