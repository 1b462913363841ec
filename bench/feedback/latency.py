"""What a rating's sender and its readers wait for, through a real gateway, Kafka, a collector and PostgreSQL."""

import asyncio
import sqlite3
import sys
import threading
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

from bench.feedback.load import Found, Load
from bench.feedback.place import Place
from bench.gateway.upstream import MODEL
from deploy.errors import FlywheelError
from feedback.sqlite import prepare
from feedback.store import Keys, Store
from gateway.config import GatewayConfig
from tests.gateway.processes import answers, free_port, gateway, spawned

ROOT = Path(__file__).parents[2]
REQUESTS, RATINGS = 400, 100  # a second: 500 events
_COMMIT_EVERY = 0.02  # seconds


async def measure(place: Place, seconds: float) -> dict[str, Any]:
    """Latencies in milliseconds, while `REQUESTS` and `RATINGS` go on. Raises `FlywheelError`."""
    assert place.kafka is not None
    key = _key(place.store_url)
    upstream, port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    config = GatewayConfig(
        port=port,
        vllm_url=f"http://127.0.0.1:{upstream}",
        base_model=MODEL,
        base_digest="bench",
        agents=(ROOT / "agents" / "sql_analyst",),
        knowledge=ROOT / "domains" / "insurance" / "knowledge.toml",
        store_url=place.store_url,
        outbox_path=place.outbox,
        delivery_process=True,
        kafka=place.kafka,
    )
    collector = ("-m", "feedback.bus.kafka.collecting", place.kafka.model_dump_json(), place.store_url)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(spawned("-m", "bench.gateway.upstream", str(upstream)))
        await stack.enter_async_context(spawned(*collector, log=place.folder / "collector.log"))
        log = place.folder / "gateway.log"
        process = await stack.enter_async_context(gateway(config, place.folder, log=log))
        await answers(f"{url}/readyz", process)
        load = Load(url=url, key=key, model=MODEL, per_second=REQUESTS, seconds=seconds)
        ratings = load.model_copy(update={"per_second": RATINGS, "store_url": place.store_url})
        stop = threading.Event()
        disk = asyncio.create_task(asyncio.to_thread(_commits, place.folder / "bare.db", stop))
        try:
            beside, found = await asyncio.gather(_send(load), _send(ratings))
        finally:
            stop.set()
        bare = await disk
    return {
        "seconds": seconds,
        "requests": beside.sent,
        "ratings": found.sent,
        "errors": dict(beside.errors + found.errors),
        "acknowledged_ms": _percentiles(found.acknowledged),
        "visible_ms": _percentiles(found.visible),
        "sent_late_ms": _percentiles(found.late),
        "bare_commit_ms": _percentiles(bare),
    }


def _commits(path: Path, stop: threading.Event) -> list[float]:
    """What the disk lets nobody get below: milliseconds of a commit of one row, again and again meanwhile."""
    found = []
    with closing(sqlite3.connect(path)) as connection:
        prepare(connection)
        connection.execute("CREATE TABLE rows (body BLOB)")
        while not stop.wait(_COMMIT_EVERY):
            started = time.perf_counter()
            connection.execute("INSERT INTO rows VALUES (randomblob(400))")
            found.append(1_000 * (time.perf_counter() - started))
    return found


async def _send(load: Load) -> Found:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.feedback.load", load.model_dump_json()),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise FlywheelError("the load generator has failed, and said why above")
    return Found.model_validate_json(said)


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"p{share}": round(ordered[share * len(ordered) // 100], 2) for share in (50, 90, 99)}


def _key(store_url: str) -> str:
    store = Store.open(store_url)
    try:
        return Keys(store).create("bench", ["invoke", "rate"])
    finally:
        store.close()
