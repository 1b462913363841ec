"""uvicorn, with a drain of which the application knows: what takes too long ends with an error, and not with a cut."""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable

import uvicorn

_LAST_WORDS_SECONDS = 1.0  # from the end of the drain on: what is cancelled is recorded, and its client told


class Server(uvicorn.Server):
    """Runs `drain` as soon as it is told to stop, beside uvicorn's own waiting for connections to end.

    `drain` returns within `drain_seconds`, when nothing is in progress any more. By itself uvicorn would wait as long,
    and then cut every connection without a word.
    """

    def __init__(
        self, config: uvicorn.Config, *, drain: Callable[[], Awaitable[None]], drain_seconds: float
    ) -> None:
        config.timeout_graceful_shutdown = math.ceil(drain_seconds + _LAST_WORDS_SECONDS)
        super().__init__(config)
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, let what was accepted end, then close the application."""
        draining = asyncio.ensure_future(self._drain())
        try:
            await super().shutdown(sockets)
        finally:
            draining.cancel()
