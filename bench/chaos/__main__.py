"""Chaos: is whatever was acknowledged in the store, once, though everything was killed, cut off and filled up?

Run as `make chaos`. Real Kafka, real PostgreSQL, two collectors, the gateway with its delivery process, and a pretended
vLLM run on this machine; everything but the last is killed with `kill -9`, again and again, and started again. All the
while clients ask and rate, and remember what they were told. In the end all that waits is given time to arrive, and the
store is compared with that memory. Exit code 1: something is missing, twice or otherwise than it was acknowledged, or
does not arrive.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.chaos import report, verdict
from bench.chaos.clients import Clients
from bench.chaos.disk import bounded
from bench.chaos.plan import Incident, Kill, plan
from bench.chaos.system import ROOT, Place, System, running
from deploy.errors import FlywheelError
from feedback.bus.base import BusError
from feedback.store import Store

_ANSWERED_SECONDS = 20.0  # the longest wait, between two incidents, for one answer
_CALM_SECONDS = 3.0
_DRAIN_SECONDS = 120.0
_INTERRUPTED = 130


async def main(seed: int, kills: int, rate: float, folder: Path) -> bool:
    """Run, print, write `chaos.json`; whether everything that was acknowledged is there once."""
    logs = folder / "chaos"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="flywheel-chaos-") as name:
        other = Path(name)
        other.chmod(0o711)  # PostgreSQL, which does not run as root, must get to its folder
        place = Place(other / "disk", other, logs)
        with bounded(place.disk, place.outbox) as disk:
            async with running(place, disk, random.Random(f"network {seed}")) as system:
                found = await _endure(system, seed, kills, rate)
        found = {"seed": seed, "rate": rate, "disk": disk.description, **found}
    return report.write(found, folder / "chaos.json")


async def _endure(system: System, seed: int, kills: int, rate: float) -> dict[str, Any]:
    """Let everything happen while clients ask; what came of it."""
    headers = {"authorization": f"Bearer {system.key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(system.gateway_url, headers=headers, connector=connector) as session:
        clients = Clients(session, random.Random(f"traffic {seed}"))
        started = time.monotonic()
        async with asyncio.TaskGroup() as flowing:
            flowing.create_task(clients.ask(rate))
            await _happen(system, clients, plan(seed, kills))
            await system.ready()
            await asyncio.sleep(_CALM_SECONDS)
            clients.stop()
        seconds = time.monotonic() - started
    started = time.monotonic()
    drained = True
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await system.drained()
    except TimeoutError:
        drained = False
    drain_seconds = time.monotonic() - started
    there = await asyncio.to_thread(_recorded, system.store_url)
    told = clients.told
    return {
        "seconds": round(seconds, 1),
        "rate_reached": round(told.asked / seconds, 1),
        "incidents": _count(plan(seed, kills)),
        "starts": {name: part.starts for name, part in system.parts.items()},
        "drained": drained,
        "drain_seconds": round(drain_seconds, 1),
        "requests": asdict(verdict.of_requests(told, there)),
        "ratings": asdict(verdict.of_ratings(told, there)),
        "dead_letters": there.dead_letters,
        "strange": there.strange,
        "heard": {"asking": dict(told.answers.most_common()), "rating": dict(told.ratings.most_common())},
    }
