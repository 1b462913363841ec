"""A stretch of network that can be cut and slowed: a proxy between our processes and a server."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

_PIECE = 65_536

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Link:
    """All connections that go through it. Made by `linked`."""

    def __init__(self, reach: Callable[[], Awaitable[Streams]], chance: random.Random) -> None:
        self._reach = reach
        self._chance = chance
        self._held_up = 0.0
        self._slow_until = 0.0
        self._ends: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """End every connection, in the middle of whatever goes over it."""
        for end in self._ends:
            end.transport.abort()

    def slow(self, held_up: float, seconds: float) -> None:
        """For `seconds`, hold up whatever goes over it by up to `held_up` seconds."""
        self._held_up = held_up
        self._slow_until = asyncio.get_running_loop().time() + seconds

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes from either end, until one of them is closed."""
        try:
            far_reader, far_writer = await self._reach()
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._ends |= ends
        ways = {
            asyncio.create_task(self._pass_on(reader, far_writer)),
            asyncio.create_task(self._pass_on(far_reader, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            self._ends -= ends
            for end in ends:
                end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(_PIECE):
                if asyncio.get_running_loop().time() < self._slow_until:
                    await asyncio.sleep(self._chance.uniform(0.0, self._held_up))
                writer.write(piece)
                await writer.drain()


@asynccontextmanager
async def linked(
    listen: Callable[[Connected], Awaitable[asyncio.Server]],
    reach: Callable[[], Awaitable[Streams]],
    chance: random.Random,
) -> AsyncIterator[Link]:
    """Carry what comes to `listen` (`asyncio.start_server`, or of a Unix socket) on to whom `reach` connects with."""
    link = Link(reach, chance)
    server = await listen(link.carry)
    try:
        yield link
    finally:
        server.close()
        link.cut()
