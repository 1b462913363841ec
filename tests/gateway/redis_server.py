"""A real Redis on a socket of its own, for tests; they are skipped where none is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[3] / "shared" / "bin" / "redis-server"
HOW = "no Redis: `apt-get install redis-server`, or set REDIS_SERVER to the program"


def program() -> str:
    """The server's program. Skips the test where there is none."""
    found = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    found = found or (str(_BESIDE) if _BESIDE.exists() else None)
    return found or pytest.skip(HOW)


class RedisServer:
    """One that can be stopped and started again; nothing is written to the disk."""

    def __init__(self, folder: Path) -> None:
        self._program = program()
        self._socket = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def start(self) -> None:
        command = [
            self._program,
            *("--port", "0", "--unixsocket", str(self._socket)),
            *("--save", "", "--appendonly", "no", "--dir", str(self._socket.parent)),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "Redis does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._socket))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        return False


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    # Not pytest's folder: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
