"""The other end of `feedback.delivery_process`, which gives it a socket: `FD OUTBOX MAX_BYTES STORE_URL KAFKA DRAIN`.

`KAFKA` is the JSON of its options, or empty: then events go straight into the store. `DRAIN` 1: it begins with what the
last run has left.
"""

import asyncio
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import uvloop

from feedback.bus.base import Bus, BusError
from feedback.bus.kafka import kafka_bus
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.process import ProcessBus
from feedback.delivery import Here, delivering
from feedback.outbox import OutboxError

_LENGTH = struct.Struct(">I")
_READ_BYTES = 2**20
_TELL_SECONDS = 0.5  # how old the number of failures may be


async def _serve(link: socket.socket, path: Path, max_bytes: int | None, bus: Bus, *, drain: bool) -> None:
    """Take records until the other end is closed, then deliver what is left."""
    reader, writer = await asyncio.open_unix_connection(sock=link, limit=_READ_BYTES)

    def tell(count: int, failures: int, reason: str = "") -> None:
        if not writer.is_closing():  # who asked has gone
            writer.write(f"{count} {failures} {' '.join(reason.split())}\n".encode())

    try:
        async with delivering(path, max_bytes, bus, drain=drain) as here:
            tell(0, 0)
            telling = asyncio.create_task(_tell_failures(here, tell))
            try:
                with suppress(ConnectionError):  # the gateway was killed: what it sent has been taken
                    await _take(reader, here, tell)
            finally:
                telling.cancel()
    except (OutboxError, BusError) as error:
        tell(0, 0, str(error))
    finally:
        await bus.close()
        writer.close()


async def _take(reader: asyncio.StreamReader, here: Here, tell: Callable[[int, int, str], None]) -> None:
    received = bytearray()
    while data := await reader.read(_READ_BYTES):
        received += data
        for asks, group in groupby(_whole(received), key=lambda body: not body):
            bodies = list(group)
            reason = ""
            try:
                if asks:
                    await here.check()
                else:
                    here.write(bodies)  # blocks; what was written can be moved a moment later
            except OutboxError as error:
                reason = str(error)
            tell(len(bodies), here.failures, reason)


async def _tell_failures(here: Here, tell: Callable[[int, int], None]) -> None:
    told = 0
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        if here.failures != told:
            told = here.failures
            tell(0, told)


def _whole(received: bytearray) -> list[bytes]:
    """The records that are complete, which are removed."""
    records, start = [], 0
    while len(received) - start >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(received, start)
        end = start + _LENGTH.size + length
        if end > len(received):
            break
        records.append(bytes(received[start + _LENGTH.size : end]))
        start = end
    del received[:start]
    return records


def main(link: str, path: str, max_bytes: str, store_url: str, kafka: str, drain: str) -> int:
    """Deliver until the gateway closes its end, or is gone."""
    os.set_inheritable(int(link), False)  # noqa: FBT003  # else the collector holds it open when this process is killed
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT):  # the gateway's to follow: it may have more to send
        signal.signal(number, signal.SIG_IGN)
    bus = kafka_bus(KafkaOptions.model_validate_json(kafka), store_url) if kafka else ProcessBus(store_url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        most = int(max_bytes) or None
        runner.run(_serve(socket.socket(fileno=int(link)), Path(path), most, bus, drain=drain == "1"))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
