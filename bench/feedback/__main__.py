"""Events a second over each leg of their way, beside what bare libraries do: `make bench-feedback` (QUICK=1).

Each leg grows from a thousand events to a million (QUICK: to 100,000). Flywheel and the raw libraries take turns, so
that what else the machine does falls on both alike; the median of their ratios counts. Then come requests and ratings,
500 a second together, through a real gateway: what do the sender of a rating and its readers wait?
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.feedback import latency, report
from bench.feedback.legs import LEGS
from bench.feedback.place import Place
from bench.feedback.report import Turn
from bench.feedback.servers import SIDES, servers
from deploy.errors import FlywheelError

ROOT = Path(__file__).parents[2]
_CHUNK = 10_000  # events between two turns; they are in memory at once
_WARM = 500


async def grow(
    leg: str, places: dict[str, Place], most: int, tell: Callable[[int], None]
) -> dict[str, list[Turn]]:
    """Both sides of a leg up to `most` events; `tell` is told of the progress."""
    turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
    async with AsyncExitStack() as stack:
        workers = {side: await stack.enter_async_context(_worker(leg, side, places[side])) for side in SIDES}
        for worker in workers.values():
            await _turn(worker, _WARM)
        size = 0
        for number, events in enumerate(plan(most)):
            size += events
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                said = await _turn(workers[side], events)
                turns[side].append(Turn(size, events, **said))
            tell(events)
    return turns


def plan(most: int) -> list[int]:
    """How many events each turn has, so that one ends at each power of ten."""
    plan: list[int] = []
    size, decade = 0, 1_000
    while size < most:
        plan.append(min(_CHUNK, decade - size, most - size))
        size += plan[-1]
        decade *= 10 if size == decade else 1
    return plan


@asynccontextmanager
async def _worker(leg: str, side: str, place: Place) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.feedback.worker", leg, side, place.model_dump_json()),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def _turn(worker: asyncio.subprocess.Process, events: int) -> dict[str, float]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{events}\n".encode())
    line = await worker.stdout.readline()
    if not line:
        raise FlywheelError("a side has ended, and said why above")
    said: dict[str, float] = json.loads(line)
    return said


async def run(names: Sequence[str], most: int, latency_seconds: float) -> dict[str, Any]:
    """Measure these legs, and the latencies where seconds are given for them. Raises `FlywheelError`.

    Returns what the report is made of.
    """
    var = ROOT / "var"  # not where temporary files are: that may be memory, which is no place for an outbox
    var.mkdir(exist_ok=True)
    var.chmod(0o755)
    found: dict[str, Any] = {"machine": report.machine(), "events": most, "legs": {}}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=var) as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240  # nothing else runs yet. PostgreSQL may run as another user
        needs = [LEGS[leg] for leg in names]
        kafka = latency_seconds > 0 or any(leg.kafka for leg in needs)
        postgres = latency_seconds > 0 or any(leg.store == "postgresql" for leg in needs)
        async with servers(folder, kafka=kafka, postgres=postgres) as running:
            for leg in names:
                places = running.places(folder, leg)
                with _progress(leg, most) as tell:
                    figures = report.leg(**await grow(leg, places, most, tell))
                found["legs"][leg] = figures
                Console().print(f"{figures['ratio']:.2f} of {LEGS[leg].limit}", highlight=False)
                for place in places.values():
                    shutil.rmtree(place.folder)
            if latency_seconds:
                Console().print(f"latency: {latency_seconds:g} seconds of requests and ratings")
                place = running.place(folder, "postgresql", kafka=True)
                found["latency"] = await latency.measure(place, latency_seconds)
    return found


@contextmanager
def _progress(leg: str, most: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(leg, total=most)
        yield lambda events: progress.advance(task, events)


def main() -> int:
    """Exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="make bench-feedback", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 100,000 events")
    parser.add_argument("--events", type=int, help="up to so many instead")
    parser.add_argument("--legs", nargs="+", choices=[*LEGS, "latency"], default=[*LEGS, "latency"])
    options = parser.parse_args()
    most = options.events or (100_000 if options.quick else 1_000_000)
    seconds = 0 if "latency" not in options.legs else 15 if options.quick else 60
    try:
        found = asyncio.run(run([leg for leg in LEGS if leg in options.legs], most, seconds))
    except FlywheelError as error:
        Console(stderr=True).print(str(error), highlight=False)
        return 2
    return report.write(found, ROOT / "reports")


if __name__ == "__main__":
    sys.exit(main())
