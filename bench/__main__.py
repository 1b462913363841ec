"""What the gateway costs: requests a second, latency, and its own CPU time per request, in front of a pretended vLLM.

Run as `make bench`. Everything runs on this machine and on the loopback interface, for a bounded time.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from deploy import process
from deploy.process import Program
from feedback.store import Keys, Store
from gateway.config import GatewayConfig

ROOT = Path(__file__).parents[1]
VLLM_PORT, GATEWAY_PORT = 18_301, 18_302
PRETENDED_VLLM = f"""
import asyncio
from tests.gateway.fake_vllm import FakeVllm

async def main():
    async with FakeVllm(seconds_per_chunk=0.0).served({VLLM_PORT}):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def main(seconds: float, streams: tuple[int, ...]) -> None:
    """Measure whole and streamed answers at each number of simultaneous requests."""
    table = Table("answer", "at once", "requests/s", "median ms", "95 % ms", "gateway CPU ms/request")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = _key(folder)
        vllm = _program(
            "vllm", (sys.executable, "-c", PRETENDED_VLLM), f"http://127.0.0.1:{VLLM_PORT}/health", folder
        )
        command = (sys.executable, "-m", "gateway", "--config", str(_config(folder)))
        gateway = _program("gateway", command, f"http://127.0.0.1:{GATEWAY_PORT}/readyz", folder)
        async with (
            aiohttp.ClientSession(
                headers={"authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0)
            ) as session,
            process.running(vllm) as upstream,
        ):
            await upstream.ready(session)
            async with process.running(gateway) as measured:
                await measured.ready(session)
                (worker,) = psutil.Process(measured.pid).children()
                for stream in (False, True):
                    await _measure(session, worker, 1.0, 4, stream=stream)  # to warm up
                    for clients in streams:
                        table.add_row(*await _measure(session, worker, seconds, clients, stream=stream))
    Console().print(table)


async def _measure(
    session: aiohttp.ClientSession, worker: psutil.Process, seconds: float, clients: int, *, stream: bool
) -> list[str]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    question = [{"role": "user", "content": "How many claims are open?"}]
    body = {"model": "sql-analyst", "messages": question, "stream": stream}

    async def client() -> None:
        while (started := time.perf_counter()) < end:
            url = f"http://127.0.0.1:{GATEWAY_PORT}/v1/chat/completions"
            async with session.post(url, json=body) as response:
                await response.read()
                response.raise_for_status()
            latencies.append(time.perf_counter() - started)

    before, started = worker.cpu_times(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    elapsed, after = time.perf_counter() - started, worker.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return [
        "streamed" if stream else "whole",
        str(clients),
        f"{len(latencies) / elapsed:.0f}",
        f"{1000 * statistics.median(latencies):.1f}",
        f"{1000 * statistics.quantiles(latencies, n=20)[-1]:.1f}",
        f"{1000 * cpu / len(latencies):.2f}",
    ]


def _key(folder: Path) -> str:
    store = Store.open(_store_url(folder))
    try:
        return Keys(store).create("bench", ["invoke"])
    finally:
        store.close()


def _store_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def _config(folder: Path) -> Path:
    config = GatewayConfig(
        port=GATEWAY_PORT,
        vllm_url=f"http://127.0.0.1:{VLLM_PORT}",
        base_model="base",
        base_digest="bench",
        agents=(ROOT / "agents" / "sql_analyst",),
        knowledge=ROOT / "domains" / "insurance" / "knowledge.toml",
        store_url=_store_url(folder),
        outbox_path=folder / "outbox.db",
        delivery_process=True,
    )
    path = folder / "gateway.json"
    path.write_text(json.dumps(config.model_dump(mode="json")))
    return path


def _program(name: str, command: tuple[str, ...], ready_url: str, folder: Path) -> Program:
    return Program(
        name=name,
        command=command,
        environment={},
        ready=process.at(ready_url),
        log=folder / f"{name}.log",
        folder=ROOT,
        ready_seconds=60,
        mend="",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="per row of the table")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 16, 64], help="simultaneous requests")
    options = parser.parse_args()
    asyncio.run(main(min(options.seconds, 60.0), tuple(options.at_once)))
