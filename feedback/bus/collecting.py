"""The other end of `feedback.bus.process`: `python -m feedback.bus.collecting STORE_URL`."""

import os
import struct
import sys
from typing import BinaryIO

from feedback.collector import Collector, prepare_process
from feedback.store import Store, StoreError

_NUMBER = struct.Struct(">I")
_NICE = 10


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
    prepare_process()
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
