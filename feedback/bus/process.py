"""The bus of one machine, with its collector in a process of its own: `python -m feedback.bus.process STORE_URL`.

Parsing and writing an event costs about as much as answering a small request. In the gateway's own process that would
be taken from its answers, since Python runs one thread at a time; here it is another core's, or waits, at a low
priority, until there is time. The parent sends a batch as a frame (count, then each record's length and bytes, 32 bits
big-endian); the child answers one line, empty when the store has committed the batch, else what was wrong.
"""

import asyncio
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from feedback.bus.base import BusError
from feedback.collector import Collector
from feedback.store import Store, StoreError

_NUMBER = struct.Struct(">I")
_NICE = 10
_END_SECONDS = 5.0


class ProcessBus:
    """A `Bus`. The process is started by the first batch, and again after it has died."""

    def __init__(self, store_url: str) -> None:
        self._store_url = store_url
        self._process: asyncio.subprocess.Process | None = None
        self._publishing = asyncio.Lock()

    async def publish(self, batch: Sequence[bytes]) -> None:
        """Return when the store has committed the batch. Raises `BusError`."""
        async with self._publishing:
            try:
                answer = await self._ask(b"".join(_frame(batch)))
            except OSError as error:
                raise BusError(f"the collector's process has ended: {error}") from error
            finally:
                if self._process is not None and self._process.returncode is not None:
                    self._process = None
        if not answer.endswith(b"\n"):
            raise BusError("the collector's process has ended; the next batch starts another")
        if answer != b"\n":
            raise BusError(answer.decode(errors="replace").strip())

    async def close(self) -> None:
        """End the process, when it has written what it is writing."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _ask(self, frame: bytes) -> bytes:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                __name__,
                self._store_url,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the gateway, which empties its outbox before it ends this
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(frame)
            await process.stdin.drain()
            answer = await process.stdout.readline()
        except (
            BaseException
        ):  # cancelled, or broken: an answer that comes later would be taken for the next batch's
            self._process = None
            process.kill()
            raise
        if not answer:
            await process.wait()
        return answer


def _frame(batch: Sequence[bytes]) -> Iterator[bytes]:
    yield _NUMBER.pack(len(batch))
    for record in batch:
        yield _NUMBER.pack(len(record))
        yield record


def _read(stream: BinaryIO) -> list[bytes] | None:
    """The next batch; None at the end, also where that is in the middle of a batch."""
    try:
        return [_exactly(stream, _number(stream)) for _ in range(_number(stream))]
    except EOFError:
        return None


def _number(stream: BinaryIO) -> int:
    (number,) = _NUMBER.unpack(_exactly(stream, _NUMBER.size))
    assert isinstance(number, int)
    return number


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main(store_url: str) -> int:
    """Collect what comes until the parent closes its end, or is gone."""
    os.nice(_NICE)
    try:
        collector = Collector(Store.open(store_url))
    except (StoreError, ValueError) as error:
        _answer(" ".join(str(error).split()))
        return 1
    while (batch := _read(sys.stdin.buffer)) is not None:
        reason = ""
        try:
            collector.collect(batch)
        except StoreError as error:
            reason = " ".join(f"the store did not take the batch: {error}".split())
        if not _answer(reason):
            break
    return 0


def _answer(reason: str) -> bool:
    """Tell the parent; False where it is gone, killed while the batch was written: it will send that again."""
    try:
        os.write(sys.stdout.fileno(), f"{reason}\n".encode())
    except BrokenPipeError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
