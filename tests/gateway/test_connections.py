"""The hot path's own HTTP client, against servers that answer as HTTP allows, as it does not, and not at all."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.passthrough import connections
from gateway.passthrough.connections import Connections

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nsum: 1\r\n\r\n"
)


class Server:
    """What came, by connection; `answer` says what goes out for each request."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[list[bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[bytes] = []
        self.requests.append(mine)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                mine.append(head + await reader.readexactly(length))
                await self.answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    answer: Answer | bytes, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    async def fixed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)

    server = Server(fixed if isinstance(answer, bytes) else answer)
    listening = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://{'[::1]' if ':' in host else host}:{port}"
    try:
        yield server
    finally:
        listening.close()


async def ask(to: Connections, body: bytes = b"{}", path: str = "/v1/x") -> tuple[int, bytes]:
    answer = await to.post(path, body, {"traceparent": "00-1"})
    try:
        return answer.status, await answer.read()
    finally:
        answer.release()


async def test_a_request_is_what_the_server_expects_and_the_next_goes_by_the_same_connection():
    async with serving(HELLO) as server:
        to = Connections(server.url.replace("//", "//ann:s%40@") + "/base/")
        assert [await ask(to, b'{"a":1}'), await ask(to)] == [(200, b"hello")] * 2
        ((first, _),) = server.requests
        head, _, body = first.partition(b"\r\n\r\n")
        assert body == b'{"a":1}'
        assert head.split(b"\r\n") == [
            b"POST /base/v1/x HTTP/1.1",
            b"host: " + server.url.removeprefix("http://").encode(),
            b"content-type: application/json",
            b"accept-encoding: identity",
            b"authorization: Basic YW5uOnNA",
            b"traceparent: 00-1",
            b"content-length: 7",
        ]
        to.close()


@given(
    answer=st.sampled_from(
        [
            HELLO,
            CHUNKED,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + CHUNKED,
            b"HTTP/1.1 200\r\nContent-Length:5\r\nx: " + b"y" * 500 + b"\r\n\r\nhello",
        ]
    ),
    cuts=st.lists(st.integers(1, 600), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_however_an_answer_is_cut_into_pieces_the_same_is_read(answer, cuts):
    ends = [0, *sorted({cut for cut in cuts if cut < len(answer)}), len(answer)]

    async def in_pieces(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start, end in pairwise(ends):
            writer.write(answer[start:end])
            await writer.drain()
            await asyncio.sleep(0)

    async def twice() -> None:
        async with serving(in_pieces) as server:
            to = Connections(server.url)
            assert [await ask(to), await ask(to)] == [(200, b"hello")] * 2
            assert len(server.requests) == 1
            to.close()

    uvloop.run(twice())


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", (200, b"to the end")),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", (200, b"hello")),
        (b"HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno", (500, b"no")),
        (b"HTTP/1.1 307 Go\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n", (307, b"")),
        (b"HTTP/1.1 204 No content\r\n\r\n", (204, b"")),
    ],
)
async def test_answers_that_end_with_the_connection_or_have_no_body_are_whole(answer, read):
    async def and_close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with serving(and_close) as server:
        to = Connections(server.url)
        assert [await ask(to), await ask(to)] == [read] * 2
        to.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        HELLO[:20],
        HELLO[:-1],
        CHUNKED[:-4],
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 80_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n" + b"x: y\r\n" * 20_000,
    ],
    ids=lambda answer: answer[:45],
)
async def test_an_answer_that_breaks_off_or_is_no_http_is_an_error_and_not_a_shorter_answer(answer):
    async def and_close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with serving(and_close) as server:
        to = Connections(server.url)
        with pytest.raises(ConnectionError):
            await ask(to)
        assert len(server.requests) == 1  # on a new connection nothing is tried twice


async def test_a_connection_that_the_server_closed_when_it_was_idle_costs_no_answer():
    async def once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await writer.drain()
        writer.close()

    async with serving(once) as server:
        to = Connections(server.url)
        for _ in range(20):  # whether the end is seen before the next request goes out, is chance
            assert await ask(to) == (200, b"hello")
        assert len(server.requests) >= 20


async def test_a_server_that_closes_on_the_second_request_is_asked_once_more_on_a_new_connection():
    async def first_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.requests[-1]) == 1:
            writer.write(HELLO)
        else:
            writer.close()
            await reader.read()

    async with serving(first_only) as server:
        to = Connections(server.url)
        assert [await ask(to), await ask(to)] == [(200, b"hello")] * 2
        assert [len(requests) for requests in server.requests] == [2, 1]
        to.close()


async def test_an_answer_that_has_begun_is_never_asked_for_again():
    async def second_breaks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = len(server.requests[-1]) == 1
        writer.write(HELLO if whole else HELLO[:10])
        if not whole:
            await writer.drain()
            writer.close()

    async with serving(second_breaks) as server:
        to = Connections(server.url)
        await ask(to)
        with pytest.raises(ConnectionError):
            await ask(to)
        assert len(server.requests) == 1


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"garbage"])
async def test_what_comes_behind_an_answer_is_never_taken_for_the_next(extra):
    async def more(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO + extra)

    async with serving(more) as server:
        to = Connections(server.url)
        for _ in range(5):
            assert await ask(to) == (200, b"hello")
        assert [len(requests) for requests in server.requests] == [1] * 5


@pytest.mark.parametrize("begun", [b"", HELLO[:-5], HELLO[:-2]])
async def test_who_stops_waiting_closes_the_connection_so_that_the_server_can_stop_too(begun):
    seen = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        if not await reader.read():
            seen.set()

    async with serving(wait) as server:
        to = Connections(server.url)
        asking = asyncio.create_task(ask(to))
        while not server.requests or not server.requests[0]:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(seen.wait(), 5)


async def test_a_server_waits_when_nobody_takes_what_it_sends():
    sent = 0
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _number in range(512):
            writer.write(piece)
            await writer.drain()
            sent += 65_536
        writer.write(b"0\r\n\r\n")

    async with serving(flood) as server:
        to = Connections(server.url)
        answer = await to.post("/", b"", {})
        before = -1
        while before < sent:  # until it gets no further
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 512 * 65_536
        assert len(await answer.read()) == 512 * 65_536
        answer.release()
        assert await ask(to, b"again") == (200, b"x" * 512 * 65_536)
        assert len(server.requests) == 1
        to.close()


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch):
    async with serving(HELLO) as server:
        to = Connections(server.url)
        await asyncio.gather(ask(to), ask(to))
        assert len(server.requests) == 2
        monkeypatch.setattr(connections, "_IDLE_SECONDS", 0.0)
        await ask(to)
        assert len(server.requests) == 3
        to.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "http://a..b"])
async def test_a_server_that_cannot_be_reached_is_a_connection_error(url):
    with pytest.raises(ConnectionError, match="no connection to"):
        await Connections(url).post("/", b"", {})


async def test_a_server_that_does_not_accept_is_given_up(monkeypatch):
    monkeypatch.setattr(connections, "_CONNECT_SECONDS", 0.0)
    with pytest.raises(ConnectionError, match="within 0 s"):
        await Connections("http://127.0.0.1:1").post("/", b"", {})


async def test_ipv6():
    try:
        async with serving(HELLO, host="::1") as server:
            assert await ask(Connections(server.url)) == (200, b"hello")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


async def test_tls_is_spoken_and_the_certificate_is_looked_at(tmp_path: Path, monkeypatch):
    files = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1"
    named = "-addext", "subjectAltName=IP:127.0.0.1"
    made = [*command.split(), *named, "-keyout", str(files[0]), "-out", str(files[1])]
    subprocess.run(made, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files[1], files[0])
    async with serving(CHUNKED, tls) as server:
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(Connections(server.url))
        monkeypatch.setenv("SSL_CERT_FILE", str(files[1]))
        to = Connections(server.url)
        assert [await ask(to), await ask(to)] == [(200, b"hello")] * 2
        assert len([requests for requests in server.requests if requests]) == 1
        to.close()
