"""From one worker to another: HTTP over its private socket."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from gateway.workers.place import Place

LEADER = 0
HOST = "http://worker"  # a name for the sake of HTTP: the socket is the address
_CONNECT_SECONDS = 2.0

_log = logging.getLogger(__name__)


class PeerError(Exception):
    """The other worker did not answer. `gone`: nobody listens there."""

    def __init__(self, number: int, reason: str, *, gone: bool) -> None:
        super().__init__(f"worker {number} does not answer: {reason}")
        self.gone = gone


class Peers:
    """The other workers. `close` it; a session is made where it is first used."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._sessions: dict[int, aiohttp.ClientSession] = {}

    def session(self, number: int) -> aiohttp.ClientSession:
        """For requests to `HOST`, which that worker answers; without a time-out."""
        if number not in self._sessions:
            self._sessions[number] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.place.socket(number)), limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[number]

    async def ask(
        self, number: int, method: str, path: str, body: object = None, *, seconds: float | None
    ) -> Any:
        """What that worker answers. `seconds` None: as long as it takes. Raises `PeerError`."""
        data = None if body is None else orjson.dumps(body)
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        try:
            async with self.session(number).request(
                method, HOST + path, data=data, timeout=timeout
            ) as response:
                answer = await response.read()
        except aiohttp.ClientConnectorError as error:
            raise PeerError(number, str(error), gone=True) from error
        except TimeoutError as error:
            raise PeerError(
                number, f"nothing within {seconds or _CONNECT_SECONDS:g} s", gone=False
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise PeerError(number, str(error) or type(error).__name__, gone=False) from error
        if response.status != 200:
            detail = answer[:200].decode(errors="replace")
            raise PeerError(number, f"{response.status} to {method} {path}: {detail}", gone=False)
        return orjson.loads(answer)

    async def ask_all(
        self, method: str, path: str, body: object = None, *, seconds: float
    ) -> Mapping[int, Any | PeerError]:
        """What each of the others answers, or why it does not."""

        async def one(number: int) -> Any | PeerError:
            try:
                return await self.ask(number, method, path, body, seconds=seconds)
            except PeerError as error:
                return error

        others = self.place.others
        return dict(zip(others, await asyncio.gather(*map(one, others)), strict=True))

    async def tell_all(self, path: str, body: object = None, *, seconds: float) -> None:
        """Return when each of the others has taken it, or has not in time, which is logged. Who is gone need not."""
        for answer in (await self.ask_all("POST", path, body, seconds=seconds)).values():
            if isinstance(answer, PeerError) and not answer.gone:
                _log.error("%s was not taken by all: %s", path, answer)

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
