"""The process above several workers: it starts them behind one port, starts again who dies, and ends all in order.

Each worker has a socket of its own on that port, over which the kernel spreads connections (SO_REUSEPORT, socket(7)).
Of one socket that all inherit, whoever wakes first accepts every connection that waits: 32 clients that came at once
often had one worker. A worker listens when it is ready and no longer than it lives, so that no connection is given to
one that cannot answer. Each is a program of its own and no fork of this one, which imports next to nothing.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.listener import reserve
from gateway.workers.place import Place

_END = {signal.SIGTERM, signal.SIGINT}
_SIGNALS = {*_END, signal.SIGCHLD}
_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 30.0  # before a worker is started again
_CALM_SECONDS = 60.0  # who has run for so long starts at the first delay again
_POLL_SECONDS = 1.0
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path, unix(7)

_log = logging.getLogger(__name__)


def oversee(config: GatewayConfig, listener: socket.socket) -> int:
    """Run the workers until SIGTERM or SIGINT; then wait until they have drained. Returns the exit status.

    Where one cannot even start, all are ended, and its status is returned: starting it again would not help.
    """
    above = tempfile.gettempdir()
    if len(os.fsencode(f"{above}/flywheel-12345678/{config.processes}.sock")) > _LONGEST_SOCKET:
        listener.close()
        sys.stderr.write(
            f"gateway: {above} is too long a path for the workers' sockets: set TMPDIR to a shorter one\n"
        )
        return 2
    reserve(listener)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # they are waited for below
    with tempfile.TemporaryDirectory(prefix="flywheel-") as folder, listener:
        workers = [
            _Worker(Place(number, config.processes, Path(folder), int(time.time())))
            for number in range(config.processes)
        ]
        _prepare(Path(folder), config.model_copy(update={"port": listener.getsockname()[1]}))
        with _ended(workers):
            while True:
                for worker in workers:
                    worker.look()
                    if (status := worker.failed) is not None:
                        _log.critical("worker %d cannot start: the gateway ends", worker.place.number)
                        return status
                received = signal.sigtimedwait(_SIGNALS, min(worker.wait for worker in workers))
                if received is not None and received.si_signo in _END:
                    _log.info("signal %d: the workers drain", received.si_signo)
                    return 0


def _prepare(folder: Path, config: GatewayConfig) -> None:
    """A copy of the configuration, for the file may have been changed when a worker starts again; and the metrics'."""
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "metrics").mkdir()


class _Worker:
    """One worker through all its lives. `failed` is the exit status of one that never came up by itself."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.failed: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._start_at = 0.0
        self._delay = _FIRST_SECONDS

    @property
    def wait(self) -> float:
        """Seconds until it has to be looked at again."""
        return _POLL_SECONDS if self._process is not None else max(0.0, self._start_at - time.monotonic())

    def look(self) -> None:
        """Start it, where it is time to; see whether it has ended."""
        if self._process is not None and self._process.poll() is not None:
            self._has_ended(self._process.pid, self._process.returncode)
            self._process = None
        if self._process is None and self.failed is None and time.monotonic() >= self._start_at:
            self._start()

    def terminate(self) -> None:
        """Have it drain."""
        if self._process is not None:
            self._process.terminate()

    def join(self) -> None:
        """Wait until it has ended."""
        # SIGTERM itself ends one that is still starting.
        if self._process is not None and self._process.wait() not in (0, -signal.SIGTERM):
            _log.error("worker %d ended with %d", self.place.number, self._process.returncode)

    def _start(self) -> None:
        assert self.place.folder is not None
        self._started = time.monotonic()
        numbers = (
            self.place.number,
            self.place.count,
            self.place.started,
            os.getpid(),
        )
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gateway.workers.worker",
                str(self.place.folder / "config.json"),
                *map(str, numbers),
            ],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self.place.folder / "metrics")},
        )

    def _has_ended(self, pid: int, status: int) -> None:
        assert self.place.folder is not None
        for gauge in (self.place.folder / "metrics").glob(f"gauge_live*_{pid}.db"):
            gauge.unlink()  # what it had in progress is in progress no more
        if status > 0 and not self.place.socket(self.place.number).exists():
            self.failed = status
            return
        if time.monotonic() - self._started > _CALM_SECONDS:
            self._delay = _FIRST_SECONDS
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        message = "worker %d (process %d) %s: it is started again in %.1f s"
        _log.critical(message, self.place.number, pid, how, self._delay)
        self._start_at = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, _LONGEST_SECONDS)


@contextmanager
def _ended(workers: list[_Worker]) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
