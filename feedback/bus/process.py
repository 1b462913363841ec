"""The bus of one machine, with its collector in a process of its own: `feedback.bus.collecting`.

Parsing and writing an event costs about as much as answering a small request, and can wait, at a low priority, until
there is time: what takes events must not wait for it. A batch is sent as a frame (count, then each record's length and
bytes, 32 bits big-endian); one line is the answer, empty when the store has committed the batch, else what was wrong.
"""

import asyncio
import struct
import sys
from collections.abc import Iterator, Sequence

from feedback.bus.base import Bus, BusError

_NUMBER = struct.Struct(">I")
_END_SECONDS = 5.0


class ProcessBus(Bus):
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
                "feedback.bus.collecting",
                self._store_url,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for who publishes, and ends this when all is published
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
