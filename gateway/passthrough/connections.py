"""HTTP/1.1 to model servers, with the least that a request needs: one write, one parser, one future.

aiohttp's client spends about as much on a small answer as everything else that the hot path does (docs/log.md), so that
path alone has its own. It knows POST with a JSON body and whatever may come back, and follows no redirect; parsing is
httptools' business, as in uvicorn.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import httptools

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 15.0  # after which a connection is not used again: what lies in between may have forgotten it
_MAX_FRAMING_BYTES = 65_536  # of heads, sizes of chunks and trailers, between two pieces of a body
_MAX_WAITING_BYTES = 262_144  # of a body that nobody has taken: beyond, the server has to wait


class Connections:
    """Connections to one server, kept and used again. One event loop's; `close` it at the end."""

    def __init__(self, url: str) -> None:
        """`url` is where it is reached, as in the configuration. Raises `ValueError` for one that is none."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._address = parts.hostname or "", parts.port or (443 if secure else 80)
        self._ssl = ssl.create_default_context() if secure else None
        self._base = parts.path.rstrip("/")
        credentials, _, host = parts.netloc.rpartition("@")
        fixed = f"host: {host}\r\ncontent-type: application/json\r\naccept-encoding: identity\r\n"
        if credentials:
            fixed += f"authorization: Basic {b64encode(unquote(credentials).encode()).decode()}\r\n"
        self._fixed = fixed
        self._idle: deque[Connection] = deque()  # the one that was used last is last

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> "Connection":
        """Ask; return when the answer's head is there. `headers` are trusted to hold no line ends.

        The caller reads what it wants and then calls `release`, in any case. Raises `ConnectionError`.
        """
        more = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"POST {self._base}{path} HTTP/1.1\r\n{self._fixed}{more}content-length: {len(body)}\r\n\r\n"
        request = head.encode("latin-1") + body
        now = asyncio.get_running_loop().time()
        if self._idle and now - self._idle[-1].idle_since < _IDLE_SECONDS:
            connection = self._idle.pop()
            try:
                await connection.ask(request)
                return connection
            except ConnectionError:
                if connection.received:
                    raise  # else the server has closed it for being idle, as servers do: a new one tells
        connection = await self._open()
        await connection.ask(request)
        return connection

    def keep(self, connection: "Connection") -> None:
        """It is free again."""
        self._idle.append(connection)
        while connection.idle_since - self._idle[0].idle_since > _IDLE_SECONDS:
            self._idle.popleft().abort()

    def forget(self, connection: "Connection") -> None:
        """It was closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what is not in use."""
        while self._idle:
            self._idle.pop().abort()

    async def _open(self) -> "Connection":
        loop = asyncio.get_running_loop()
        host, port = self._address
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), host, port, ssl=self._ssl
                )
        except TimeoutError:
            raise ConnectionError(f"no connection to {host}:{port} within {_CONNECT_SECONDS:g} s") from None
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a host's name
            raise ConnectionError(f"no connection to {host}:{port}: {error}") from error
        return connection


class Connection(asyncio.Protocol):
    """A connection, and the answer that comes by it: `status` and the body. One request at a time.

    `received`: something of the answer has come.
    """

    def __init__(self, connections: Connections) -> None:
        self.idle_since = 0.0
        self.status = 0
        self.received = False
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._asked = False  # a request is in progress
        self._complete = False  # the answer has come, all of it
        self._reusable = False
        self._sized = False  # the head says where the body ends; else it ends with the connection
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._framing = 0
        self._paused = False
        self._error: ConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def ask(self, request: bytes) -> None:
        """Send it; return when the answer's head is there. Raises `ConnectionError`; closes when cancelled."""
        self._asked, self._complete, self.received = True, False, False
        self.status = 0
        self._transport.write(request)
        try:
            while not self.status:
                await self._more()
        except BaseException:  # cancelled, too: what would come later belongs to nobody
            self.abort()
            raise

    async def piece(self) -> bytes:
        """What has come of the body since the last; empty at the end. Raises `ConnectionError` when it breaks off."""
        while not (self._pieces or self._complete):
            await self._more()
        pieces, self._pieces = self._pieces, []
        self._waiting_bytes = 0
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read(self) -> bytes:
        """All of the body. Raises `ConnectionError`."""
        body = [await self.piece()]
        while self._pieces or not self._complete:
            body.append(await self.piece())
        return b"".join(body)

    def release(self) -> None:
        """The caller is done. What was not read to its end is closed, which ends the server's work on it."""
        self._asked = False
        if self._complete and self._reusable and not self._pieces and not self._transport.is_closing():
            self.idle_since = self._loop.time()
            self._connections.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._asked = False
        self._transport.abort()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _fail(self, reason: str) -> None:
        if not self._complete and self._error is None:
            self._error = ConnectionError(reason)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio's callbacks

    def connection_made(self, transport: Any) -> None:  # uvloop's is no subclass of asyncio's
        """See asyncio."""
        self._transport: asyncio.Transport = transport
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._connections.forget(self)
        if exc is None and self.status and not self._sized:
            self._complete = True
        self._fail(f"it closed the connection{'' if exc is None else f': {exc}'}")

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if not self._asked:  # whose answer would it be?
            self.abort()
            return
        self.received = True
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"its answer is not HTTP as it should be: {error}")
            self.abort()
            return
        if self._framing > _MAX_FRAMING_BYTES:
            self._fail(f"its answer has more than {_MAX_FRAMING_BYTES} bytes of headers")
            self.abort()
        elif self._waiting_bytes > _MAX_WAITING_BYTES and not (self._paused or self._complete):
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """See httptools. Raises `ValueError` for a second answer to one request, which ends the connection."""
        if self._complete:
            raise ValueError("a second answer")
        self._sized = False

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002  # httptools' signature
        """See httptools."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._sized = True

    def on_headers_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        self.status = status if status >= 200 else 0  # what is below announces the answer
        self._framing = 0

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        self._pieces.append(data)
        self._waiting_bytes += len(data)
        self._framing = 0

    def on_message_complete(self) -> None:
        """See httptools."""
        if self.status:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()
            self._framing = 0
