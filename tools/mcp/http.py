"""The streamable HTTP transport: the SDK's, over a client that bounds what it reads.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp.client._transport import TransportStreams  # the name of a type alone; it has no public one
from mcp.client.streamable_http import streamable_http_client

from tools.mcp.options import McpOptions

_PATIENCE = 5.0  # seconds: the limit of a call comes first, for this one ends the session


@asynccontextmanager
async def http(options: McpOptions) -> AsyncIterator[TransportStreams]:
    """The server at `options.url`. It is redirected nowhere else, and no proxy of the environment is used.

    Raises `McpError`, and what httpx2 does of a connection.
    """
    assert options.url is not None
    limit = options.max_message_bytes
    async with (
        httpx2.AsyncClient(
            headers={**options.header_values(), "accept-encoding": "identity"},
            timeout=httpx2.Timeout(options.connect_seconds, read=options.seconds + _PATIENCE),
            transport=_Bounded(limit),
            trust_env=False,
        ) as client,
        streamable_http_client(options.url, http_client=client, max_sse_event_size=limit) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncHTTPTransport):
    """Reads so many bytes of an answer and no more, as they come: nothing is unpacked."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.DecodingError("a compressed answer, which was not asked for", request=request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream, self._limit)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._left = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise httpx2.StreamError("an answer beyond max_message_bytes")  # costs this request only
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
