"""A closed-loop load generator on a bare protocol: each connection sends its next request when the answer is whole.

`python -m bench.gateway.load JSON` prints JSON: requests a second, latencies and time to first byte in ms, errors.
"""

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import uvloop

MESSAGES = [
    {"role": "system", "content": "You are an assistant. Answer briefly, and only what was asked."},
    {"role": "user", "content": "What is the capital of France, and how many people live there?"},
]


class Load:
    """What all connections have measured together. Seconds."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.running = True
        self.counting = False
        self.all = 0  # answers, those of the warm-up too
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.errors: list[str] = []


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        self._transport = transport
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if self._load.running:
            self._load.errors.append(f"connection lost: {exc}")

    def _send(self) -> None:
        self._head, self._left, self._first, self._tail = b"", None, 0.0, b""
        self._started = time.perf_counter()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if not self._first:
            self._head += data
            head, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            self._begin(head.lower())
            if not data and self._left != 0:
                return
        if self._left is None:
            self._tail = (self._tail + data)[-7:]
            whole = self._tail.endswith(b"\r\n0\r\n\r\n") or self._tail == b"0\r\n\r\n"
        else:
            self._left -= len(data)
            whole = self._left <= 0
        if whole:
            self._end()

    def _begin(self, head: bytes) -> None:
        self._first = time.perf_counter()
        if b" 200 " not in head[:16]:
            self._load.errors.append(head[:40].decode())
        _, found, rest = head.partition(b"content-length:")
        self._left: int | None = int(rest.split(b"\r\n", 1)[0]) if found else None

    def _end(self) -> None:
        load = self._load
        load.all += 1
        if load.counting:
            load.latencies.append(time.perf_counter() - self._started)
            load.firsts.append(self._first - self._started)
        if load.running:
            self._send()


async def measure(
    url: str, headers: dict[str, str], model: str, *, at_once: int, seconds: float, stream: bool
) -> Any:
    """Warm up for a fifth of `seconds`, then count."""
    parts = urlsplit(url)
    body = json.dumps({"model": model, "messages": MESSAGES, "max_tokens": 64, "stream": stream}).encode()
    lines = {
        "host": parts.netloc,
        "content-type": "application/json",
        "content-length": str(len(body)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    load = Load(f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    loop = asyncio.get_running_loop()
    for _ in range(at_once):
        await loop.create_connection(lambda: Client(load), parts.hostname, parts.port)
    await asyncio.sleep(seconds / 5)
    load.counting, started = True, time.perf_counter()
    await asyncio.sleep(seconds)
    load.counting = load.running = False
    elapsed = time.perf_counter() - started
    return {
        "per_second": len(load.latencies) / elapsed,
        "answers": len(load.latencies),
        "all_answers": load.all,
        "p50_ms": _percentile(load.latencies, 0.5),
        "p99_ms": _percentile(load.latencies, 0.99),
        "first_p50_ms": _percentile(load.firsts, 0.5),
        "errors": len(load.errors),
        "an_error": load.errors[0] if load.errors else None,
    }


def _percentile(values: list[float], share: float) -> float | None:
    return 1_000 * sorted(values)[int(share * len(values))] if values else None


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(**json.loads(sys.argv[1])))))
