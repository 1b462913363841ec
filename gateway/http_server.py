"""uvicorn's HTTP protocol with a bound on the head of a request, which its fast parser has not.

Without it, one connection that sends headers for ever fills the memory, and no application ever hears of it.
"""

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import head_too_large


def bounded_http(max_header_bytes: int) -> type[HttpToolsProtocol]:
    """What to give to uvicorn as `http`. A head that is still not complete after so many bytes ends the connection."""

    class BoundedHttp(HttpToolsProtocol):
        overhead = 0  # bytes since the last that were no head or framing: heads, trailers, sizes of chunks

        def data_received(self, data: bytes) -> None:
            self.overhead += len(data)
            super().data_received(data)
            if self.overhead > max_header_bytes and not self.transport.is_closing():
                _refuse(self, max_header_bytes)

        def on_headers_complete(self) -> None:
            self.overhead = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self.overhead = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self.overhead = 0
            super().on_message_complete()

    return BoundedHttp


def _refuse(protocol: HttpToolsProtocol, limit: int) -> None:
    answer = head_too_large(limit).response()
    phrase = HTTPStatus(answer.status_code).phrase
    lines = [f"HTTP/1.1 {answer.status_code} {phrase}".encode()]
    lines += [name + b": " + value for name, value in (*answer.raw_headers, (b"connection", b"close"))]
    protocol.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body))
    protocol.transport.close()
