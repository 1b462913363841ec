"""A pretended vLLM, as fast as Python can: prepared bytes on a bare protocol. `python -m bench.gateway.upstream PORT`.

It answers with 32 tokens at once, or streams 50 chunks, one every 5 ms (a fast model: 200 tokens a second). As vLLM
does, it adds token ids and logprobs where the request asks for them: whoever records pays for reading them.
"""

import asyncio
import json
import socket
import sys
from typing import Any, ClassVar

import uvloop

MODEL = "base"
CHUNKS = 50
TOKENS = 32
CHUNK_SECONDS = 0.005


def _entry(token: str, number: int) -> dict[str, Any]:
    return {"token": token, "logprob": -number / 64, "bytes": list(token.encode()), "top_logprobs": []}


def _whole(*, exact: bool) -> bytes:
    tokens = [f" tok{number}" for number in range(TOKENS)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(tokens),
        "refusal": None,
        "tool_calls": [],
    }
    logprobs = {"content": [_entry(token, number) for number, token in enumerate(tokens)]} if exact else None
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": "stop",
        "stop_reason": None,
    }
    answer: dict[str, Any] = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{**choice, "token_ids": list(range(1_000, 1_000 + TOKENS)) if exact else None}],
        "usage": {"prompt_tokens": 20, "total_tokens": 20 + TOKENS, "completion_tokens": TOKENS},
        "prompt_token_ids": list(range(20)) if exact else None,
    }
    body = json.dumps(answer, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _chunks(*, exact: bool) -> list[bytes]:
    head = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1_700_000_000}
    first = {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    shared = {"prompt_token_ids": list(range(20))} if exact else {}
    events = [{**head, "model": MODEL, "choices": [first], **shared}]
    for number in range(CHUNKS):
        token = f" tok{number}"
        choice: dict[str, Any] = {
            "index": 0,
            "delta": {"content": token},
            "logprobs": None,
            "finish_reason": None,
        }
        if number == CHUNKS - 1:
            choice |= {"finish_reason": "stop", "stop_reason": None}
        if exact:
            choice |= {"logprobs": {"content": [_entry(token, number)]}, "token_ids": [1_000 + number]}
        events.append({**head, "model": MODEL, "choices": [choice]})
    lines = [b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode() for event in events]
    framed = [b"%x\r\n%b\r\n" % (len(line), line) for line in [*lines, b"data: [DONE]\n\n"]]
    head_bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head_bytes + framed[0], *framed[1:-1], framed[-1] + b"0\r\n\r\n"]


class Upstream(asyncio.Protocol):
    """One connection. `streams` are all that are being streamed to, with the chunks that are still to go."""

    streams: ClassVar[dict["Upstream", list[bytes]]] = {}
    wholes = (_whole(exact=False), _whole(exact=True))
    chunks = (_chunks(exact=False)[::-1], _chunks(exact=True)[::-1])

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        self._buffer = b""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """See asyncio."""
        self.streams.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        data = self._buffer + data
        head, separator, body = data.partition(b"\r\n\r\n")
        length = _length(head) if separator else 0
        if not separator or len(body) < length:
            self._buffer = data
            return
        self._buffer = body[length:]
        exact = b'"return_token_ids":true' in body
        if b'"stream":true' in body or b'"stream": true' in body:
            self.streams[self] = list(self.chunks[exact])
        elif head.startswith(b"GET"):
            self.transport.write(_models())
        else:
            self.transport.write(self.wholes[exact])


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


def _models() -> bytes:
    models = {"object": "list", "data": [{"id": MODEL, "object": "model", "root": MODEL, "parent": None}]}
    body = json.dumps(models).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


async def serve(port: int) -> None:
    """Until killed."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Upstream, "127.0.0.1", port, backlog=2_048)
    due = loop.time()
    while True:
        due = max(due + CHUNK_SECONDS, loop.time())
        await asyncio.sleep(due - loop.time())
        for stream, left in list(Upstream.streams.items()):
            stream.transport.write(left.pop())
            if not left:
                Upstream.streams.pop(stream, None)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
