"""Events a second over each leg of their way, beside what bare libraries do: `make bench-feedback` (QUICK=1: shorter).

Each leg grows from a thousand events to a million (QUICK: to 100,000), in chunks, and Flywheel's side and the raw one take
turns, so that what else the machine does falls on both alike; the median of their ratios counts. Then come requests and
ratings through a real gateway, 500 events a second, for what a rating's sender and reader have to wait.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.feedback import report
from bench.feedback.legs import LEGS
from bench.feedback.place import Place
from bench.feedback.servers import Servers, servers
from deploy.errors import FlywheelError

ROOT = Path(__file__).parents[2]
SIDES = ("ours", "raw")
_CHUNK = 10_000  # events between two turns; they are in memory at once
_WARM = 500


class Chunk(NamedTuple):
    """One side's turn. `size` is how many events it has taken since the beginning."""

    size: int
    events: int
    seconds: float
    mebibytes: float


async def grow(
    leg: str, places: dict[str, Place], most: int, tell: Any, log: Path
) -> dict[str, list[Chunk]]:
    """Both sides of a leg up to `most` events; `tell` is told of the progress."""
    chunks: dict[str, list[Chunk]] = {side: [] for side in SIDES}
    async with AsyncExitStack() as stack:
        workers = {
            side: await stack.enter_async_context(_worker(leg, side, places[side], log)) for side in SIDES
        }
        for worker in workers.values():
            await _turn(worker, _WARM)
        size = 0
        for number, events in enumerate(_plan(most)):
            size += events
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                said = await _turn(workers[side], events)
                chunks[side].append(Chunk(size, events, **said))
            tell(events)
    return chunks


def _plan(most: int) -> list[int]:
    """Chunks that end at each power of ten."""
    plan: list[int] = []
    size, decade = 0, 1_000
    while size < most:
        plan.append(min(_CHUNK, decade - size, most - size))
        size += plan[-1]
        decade *= 10 if size == decade else 1
    return plan


@asynccontextmanager
async def _worker(leg: str, side: str, place: Place, log: Path):
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.feedback.worker", leg, side, place.model_dump_json()),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
        )
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def _turn(worker: asyncio.subprocess.Process, events: int) -> dict[str, float]:
    worker.stdin.write(f"{events}\n".encode())
    line = await worker.stdout.readline()
    if not line:
        raise FlywheelError("a side has ended; its log says why")
    return json.loads(line)
