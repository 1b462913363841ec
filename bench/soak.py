"""Ten minutes at 80 % of capacity: is memory flat, and is nothing refused, lost or slow?

Run as `make soak`. A gateway process, a pretended vLLM in another and the load all run on this machine. Capacity is
measured first, with as many clients at once as `--clients`; then requests come at the given share of it, at random
moments that do not wait for answers, so that a gateway that stalls is seen to (latency counts from the moment when a
request was due). Half of the answers are streamed, each tenth is rated. Exit code 1: an error, a loss, or memory that
grows.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from feedback.store import Keys, Store
from gateway.config import GatewayConfig
from tests.gateway.processes import answers, free_port, gateway, model_server

ROOT = Path(__file__).parents[1]
SEED = 20_261_123
MIB = 2**20
QUESTION = [{"role": "user", "content": "How many claims are open?"}]
CAPACITY_SECONDS = 20.0
RATED = 10  # each tenth
AT_ONCE = 128  # requests in progress; the gateway's own limit is 256
FLAT = 0.02  # growth of the second half, as a share of the memory in its middle, that is taken for noise


@dataclass
class Load:
    """What was sent and what came of it. Latencies in seconds."""

    session: aiohttp.ClientSession
    latencies: list[float] = field(default_factory=list)
    answered: int = 0
    rated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def in_turn(self, number: int, due: float) -> None:
        """Ask when fewer than `AT_ONCE` others wait for an answer; the time until then counts as latency."""
        async with self.places:
            await self.one(number, due)

    async def one(self, number: int, due: float) -> None:
        """Ask once, and rate if it is the turn."""
        stream = number % 2 == 0
        body = {"model": "sql-analyst", "messages": QUESTION, "stream": stream}
        try:
            async with self.session.post("/v1/chat/completions", json=body) as response:
                text = await response.read()
                if response.status != 200 or (stream and not text.endswith(b"data: [DONE]\n\n")):
                    self.errors[f"answer {response.status}: {text[-200:]!r}"] += 1
                    return
                request_id = response.headers["x-request-id"]
            self.answered += 1
            self.latencies.append(time.perf_counter() - due)
            if number % RATED == 0:
                rating = {"request_id": request_id, "value": True}
                async with self.session.post("/v1/feedback", json=rating) as response:
                    text = await response.read()
                    if response.status != 200:
                        self.errors[f"rating {response.status}: {text[-200:]!r}"] += 1
                        return
                self.rated += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.errors[type(error).__name__] += 1

    async def at_capacity(self, clients: int, seconds: float) -> float:
        """Requests a second that `clients` at once get answered and the store takes: a backlog is no capacity."""
        started = time.perf_counter()

        async def client(first: int) -> None:
            number = first
            while (due := time.perf_counter()) < started + seconds:
                await self.one(number, due)
                number += 1

        before = self.answered
        await asyncio.gather(*(client(number) for number in range(clients)))
        while await self.backlog():  # noqa: ASYNC110  # it is in another process
            await asyncio.sleep(0.05)
        return (self.answered - before) / (time.perf_counter() - started)

    async def backlog(self) -> int:
        """Events that wait for the store."""
        async with self.session.get("/v1/status") as response:
            status = await response.json()
        return int(status["outbox"]["depth"])

    async def at_rate(self, rate: float, seconds: float) -> None:
        """`rate` requests a second on average, at random moments, whatever becomes of the earlier ones."""
        chance = random.Random(SEED)
        due = started = time.perf_counter()
        number = 0
        async with asyncio.TaskGroup() as running:
            while (due := due + chance.expovariate(rate)) < started + seconds:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                running.create_task(self.in_turn(number, due))
                number += 1


async def main(minutes: float, share: float, clients: int) -> bool:
    """Measure, print, write `reports/soak.json`; whether memory was flat and nothing went wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with model_server(free_port(), seconds_per_chunk=0.0) as vllm_url:
            config, key = _config(folder, vllm_url), _key(folder)
            url = f"http://127.0.0.1:{config.port}"
            headers = {"authorization": f"Bearer {key}"}
            connector = aiohttp.TCPConnector(limit=0)
            async with (
                gateway(config, folder, log=folder / "gateway.log") as process,
                aiohttp.ClientSession(url, headers=headers, connector=connector) as session,
            ):
                await answers(f"{url}/readyz", process)
                first = Load(session)
                capacity = await first.at_capacity(clients, CAPACITY_SECONDS)
                Console().print(
                    f"capacity: {capacity:.0f} requests/s; now {minutes:g} minutes at {share:.0%}"
                )
                load = Load(session)
                memory: list[tuple[float, float]] = []
                sampling = asyncio.create_task(_sample(process.pid, memory))
                await load.at_rate(share * capacity, 60 * minutes)
                sampling.cancel()
                backlog_at_end = await load.backlog()
                process.terminate()
                await process.wait()
        recorded = _recorded(folder)
    report = _report(capacity, share, minutes, load, memory)
    report["backlog_at_end"] = backlog_at_end
    report["lost"] = {
        "requests": max(0, first.answered + load.answered - recorded["requests"]),
        "ratings": max(0, first.rated + load.rated - recorded["ratings"]),
    }
    report["errors"] = dict(first.errors + load.errors)
    report["passed"] = not report["errors"] and not any(report["lost"].values()) and report["memory"]["flat"]
    path = ROOT / "reports" / "soak.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    _print(report, path)
    return bool(report["passed"])


async def _sample(pid: int, memory: list[tuple[float, float]]) -> None:
    """Append (seconds, MiB of the gateway's processes) each second until cancelled."""
    process = psutil.Process(pid)
    started = time.perf_counter()
    while True:
        every = [process, *process.children(recursive=True)]
        memory.append((time.perf_counter() - started, sum(p.memory_info().rss for p in every) / MIB))
        await asyncio.sleep(1)


def _report(
    capacity: float, share: float, minutes: float, load: Load, memory: list[tuple[float, float]]
) -> dict[str, Any]:
    half = memory[len(memory) // 2 :]
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope  # MiB a second
    middle = half[0][1]
    grown = slope * (half[-1][0] - half[0][0])
    cuts = statistics.quantiles(load.latencies, n=100)
    return {
        "capacity_per_second": round(capacity, 1),
        "share": share,
        "minutes": minutes,
        "requests": load.answered,
        "requests_per_second": round(load.answered / (60 * minutes), 1),
        "ratings": load.rated,
        "latency_ms": {"p50": round(1000 * cuts[49], 1), "p99": round(1000 * cuts[98], 1)},
        "memory": {
            "start_mib": round(memory[0][1], 1),
            "middle_mib": round(middle, 1),
            "end_mib": round(memory[-1][1], 1),
            "slope_mib_per_minute": round(60 * slope, 3),
            "flat": grown <= FLAT * middle,
        },
    }


def _print(report: dict[str, Any], path: Path) -> None:
    table = Table("figure", "value", show_header=False)
    for name, value in report.items():
        if isinstance(value, dict):
            for part, item in value.items():
                table.add_row(f"{name}.{part}", str(item))
        else:
            table.add_row(name, str(value))
    Console().print(table)
    Console().print(f"written to {path}")


def _key(folder: Path) -> str:
    store = Store.open(_store_url(folder))
    try:
        return Keys(store).create("soak", ["invoke", "rate", "operate"])
    finally:
        store.close()


def _recorded(folder: Path) -> dict[str, int]:
    store = Store.open(_store_url(folder))
    try:
        return store.counts()
    finally:
        store.close()


def _store_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def _config(folder: Path, vllm_url: str) -> GatewayConfig:
    return GatewayConfig(
        port=free_port(),
        vllm_url=vllm_url,
        base_model="base",
        base_digest="soak",
        agents=(ROOT / "agents" / "sql_analyst",),
        knowledge=ROOT / "domains" / "insurance" / "knowledge.toml",
        store_url=_store_url(folder),
        outbox_path=folder / "outbox.db",
        delivery_process=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--share", type=float, default=0.8, help="of the measured capacity")
    parser.add_argument("--clients", type=int, default=32, help="at once, while capacity is measured")
    options = parser.parse_args()
    sys.exit(not asyncio.run(main(options.minutes, options.share, options.clients)))
