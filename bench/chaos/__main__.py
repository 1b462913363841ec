"""Chaos: is whatever was acknowledged in the store, once, though everything was killed, cut off and filled up?

Run as `make chaos`. Real Kafka, real PostgreSQL, two collectors, the gateway with its delivery process, and a pretended
vLLM run on this machine; everything but the last is killed with `kill -9`, again and again, and started again. All the
while clients ask and rate, and remember what they were told. In the end all that waits is given time to arrive, and the
store is compared with that memory. Exit code 1: something is missing, twice or otherwise than it was acknowledged, or
does not arrive; 2: it cannot run here.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.chaos import report, verdict
from bench.chaos.clients import Clients
from bench.chaos.disk import Disk, bounded
from bench.chaos.parts import until
from bench.chaos.plan import Incident, plan
from bench.chaos.system import ROOT, Place, System, running
from deploy.errors import FlywheelError
from feedback.bus.base import BusError
from feedback.store import Store

_ANSWERED_SECONDS = 20.0  # the longest wait, between two incidents, for one answer
_CALM_SECONDS = 3.0
_DRAIN_SECONDS = 120.0
_CANNOT_RUN, _INTERRUPTED = 2, 130


def main(seed: int, kills: int, rate: float, folder: Path) -> bool:
    """Run, print, write `chaos.json`; whether everything that was acknowledged is there once."""
    logs = folder / "chaos"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="flywheel-chaos-") as name:
        other = Path(name)
        other.chmod(0o711)  # PostgreSQL, which does not run as root, must get to its folder
        place = Place(other / "disk", other, logs)
        with bounded(place.disk, place.outbox) as disk:
            found = asyncio.run(_run(place, disk, seed, kills, rate))
    return report.write(found, folder / "chaos.json")


async def _run(place: Place, disk: Disk, seed: int, kills: int, rate: float) -> dict[str, Any]:
    async with running(place, disk, random.Random(f"network {seed}")) as system:
        found = await _endure(system, seed, kills, rate)
    return {"seed": seed, "rate": rate, "disk": disk.description, **found}


async def _endure(system: System, seed: int, kills: int, rate: float) -> dict[str, Any]:
    """Let everything happen while clients ask; what came of it."""
    incidents = plan(seed, kills)
    headers = {"authorization": f"Bearer {system.key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(system.gateway_url, headers=headers, connector=connector) as session:
        clients = Clients(session, random.Random(f"traffic {seed}"))
        started = time.monotonic()
        asking = asyncio.create_task(clients.ask(rate))
        try:
            await _happen(system, clients, incidents)
            await system.ready()
            await asyncio.sleep(_CALM_SECONDS)
            clients.stop()
            await asking
        finally:
            asking.cancel()
            await asyncio.wait({asking})
        seconds = time.monotonic() - started
    drain_seconds = await _drained(system)
    there = await asyncio.to_thread(_recorded, system)
    told = clients.told
    return {
        "seconds": round(seconds, 1),
        "rate_reached": round(told.asked / seconds, 1),
        "incidents": Counter(incident.name for _, incident in incidents),
        "starts": {name: part.starts for name, part in system.parts.items()},
        "drain_seconds": drain_seconds,
        "requests": asdict(verdict.of_requests(told, there)),
        "ratings": asdict(verdict.of_ratings(told, there)),
        "dead_letters": there.dead_letters,
        "strange": there.strange,
        "heard": {"asking": dict(told.answers.most_common()), "rating": dict(told.ratings.most_common())},
    }


async def _happen(system: System, clients: Clients, incidents: list[tuple[float, Incident]]) -> None:
    """One after the other; in between somebody gets an answer again, if that is possible at all."""
    answered = 0

    async def answers_again() -> bool:
        return len(clients.told.completed) > answered

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(incidents))
        for pause, incident in incidents:
            answered = len(clients.told.completed)
            told = f"{len(clients.told.completed)} answered, {len(clients.told.acknowledged)} rated"
            progress.update(task, description=f"{told}; next: {incident.name}")
            await asyncio.sleep(pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWERED_SECONDS):
                    await until(answers_again)
            await system.suffer(incident)
            progress.advance(task)


async def _drained(system: System) -> float | None:
    """The seconds until nothing waited any more; None where that takes too long."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await system.drained()
    except TimeoutError:
        return None
    return round(time.monotonic() - started, 1)


def _recorded(system: System) -> verdict.Recorded:
    store = Store.open(system.store_url)
    try:
        return verdict.recorded(store, system.kafka)
    finally:
        store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200.0, help="questions a second")
    parser.add_argument(
        "--reports", type=Path, default=ROOT / "reports", help="folder of chaos.json and the logs"
    )
    options = parser.parse_args()
    try:
        sys.exit(not main(options.seed, options.kills, options.rate, options.reports))
    except (FlywheelError, BusError, TimeoutError) as error:
        print(str(error) or f"something does not start: see {options.reports / 'chaos'}", file=sys.stderr)
        sys.exit(_CANNOT_RUN)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
