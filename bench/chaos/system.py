"""Flywheel on Kafka and PostgreSQL, on a disk that can be filled and behind links that can be cut."""

import asyncio
import functools
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import psutil

from bench.chaos.clients import MODEL
from bench.chaos.disk import Disk
from bench.chaos.parts import Part, kept, no_orphans, until
from bench.chaos.plan import Cut, FullDisk, Incident, Kill, Server, Slow
from bench.chaos.proxy import Link, linked
from deploy import broker, postgres, process
from deploy.errors import FlywheelError
from deploy.process import Program
from feedback import delivering
from feedback.bus.kafka import topics
from feedback.bus.kafka.lag import lag
from feedback.bus.kafka.options import KafkaOptions
from feedback.outbox import Reader
from feedback.store import Keys, Store
from gateway.config import GatewayConfig

ROOT = Path(__file__).parents[2]
_BESIDE = ROOT.parent / "shared" / "kafka"
_COLLECTORS = 2
_PORTS = range(20_000, 30_000)
_SOCKET = ".s.PGSQL.5432"
_SECONDS_PER_CHUNK = "0.002"  # of the pretended vLLM


@dataclass(frozen=True)
class Place:
    """Where things are to lie: the outbox and the database on `disk`, which can be full, and the rest beside it."""

    disk: Path
    other: Path
    logs: Path

    @property
    def outbox(self) -> Path:
        """The gateway's."""
        return self.disk / "outbox.db"


@dataclass(frozen=True)
class System:
    """Everything runs, and is started again when it ends."""

    gateway_url: str
    key: str
    store_url: str
    kafka: KafkaOptions
    outbox: Path
    parts: dict[str, Part]
    links: dict[Server, Link]
    disk: Disk
    chance: random.Random
    session: aiohttp.ClientSession

    async def suffer(self, incident: Incident) -> None:
        """Let it happen. A program that is about to be killed may first have to be started. Raises `TimeoutError`."""
        match incident:
            case Kill("delivery"):
                await self.parts["gateway"].kill(delivering.__name__)
            case Kill("collector"):
                await self.parts[f"collector-{self.chance.randint(1, _COLLECTORS)}"].kill()
            case Kill(victim):
                await self.parts[victim].kill()
            case Cut(server):
                self.links[server].cut()
            case Slow(server, held_up, seconds):
                self.links[server].slow(held_up, seconds)
            case FullDisk(seconds):
                await self.ready()  # so that it meets programs that run
                try:
                    await asyncio.to_thread(self.disk.fill)
                    await asyncio.sleep(seconds)
                finally:
                    self.disk.free()

    async def ready(self) -> None:
        """Return when everything answers. Raises `TimeoutError`."""
        for part in self.parts.values():
            await part.ready(self.session)

    async def drained(self) -> None:
        """Return when nothing waits any more, in the outbox or on a topic. Raises `OutboxError`, `BusError`."""
        reader = Reader(self.outbox)

        async def relayed() -> bool:
            return not reader.depth().events

        async def collected() -> bool:
            return not any((await asyncio.to_thread(lag, self.kafka)).values())

        try:
            await until(relayed)
        finally:
            reader.close()
        await until(collected)


@asynccontextmanager
async def running(place: Place, disk: Disk, chance: random.Random) -> AsyncIterator[System]:
    """Start everything, and leave nothing of it behind. Raises `FlywheelError`, `BusError`, `TimeoutError`."""
    _find_kafka()
    broker_port, _, broker_link_port, gateway_port, vllm_port = _ports(5)
    database, sockets = place.disk / "postgres", place.other / "postgres"
    sockets.mkdir()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(no_orphans())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        parts: dict[str, Part] = {}

        async def keep(name: str, program: Program) -> None:
            logged = replace(program, log=place.logs / f"{name}.log")
            parts[name] = await stack.enter_async_context(kept(logged))
            await parts[name].ready(session)

        to_broker = linked(
            functools.partial(asyncio.start_server, host="127.0.0.1", port=broker_link_port),
            functools.partial(asyncio.open_connection, "127.0.0.1", broker_port),
            chance,
        )
        to_postgres = linked(
            functools.partial(asyncio.start_unix_server, path=sockets / _SOCKET),
            functools.partial(asyncio.open_unix_connection, database / _SOCKET),
            chance,
        )
        links: dict[Server, Link] = {
            "broker": await stack.enter_async_context(to_broker),
            "postgres": await stack.enter_async_context(to_postgres),
        }
        data = place.other / "kafka"
        make = functools.partial(broker.program, data, broker_port, advertised=broker_link_port)
        await keep("broker", await asyncio.to_thread(make, logs=place.logs))
        kafka = KafkaOptions(bootstrap_servers=(f"127.0.0.1:{broker_link_port}",))
        await asyncio.to_thread(topics.create, kafka)
        await keep("postgres", await asyncio.to_thread(postgres.program, database, logs=place.logs))
        for number in range(1, _COLLECTORS + 1):
            options = kafka.model_dump_json()
            collector = _python("feedback.bus.kafka.collecting", options, postgres.url(sockets))
            await keep(f"collector-{number}", collector)
        vllm_url, gateway_url = f"http://127.0.0.1:{vllm_port}", f"http://127.0.0.1:{gateway_port}"
        model_server = _python("tests.gateway.fake_vllm", str(vllm_port), _SECONDS_PER_CHUNK)
        await keep("vllm", replace(model_server, ready=process.at(f"{vllm_url}/health")))
        config = GatewayConfig(
            port=gateway_port,
            vllm_url=vllm_url,
            base_model=MODEL,
            base_digest="chaos",
            agents=(ROOT / "agents" / "sql_analyst",),
            knowledge=ROOT / "domains" / "insurance" / "knowledge.toml",
            store_url=postgres.url(sockets),
            kafka=kafka,
            outbox_path=place.outbox,
            outbox_max_bytes=disk.outbox_max_bytes,
            delivery_process=True,
        )
        file = place.other / "gateway.json"
        file.write_text(config.model_dump_json())
        gateway = _python("gateway", "--config", str(file))
        await keep("gateway", replace(gateway, ready=process.at(f"{gateway_url}/readyz")))
        store_url = postgres.url(database)  # ours is no part of what suffers
        key = await asyncio.to_thread(_key, store_url)
        yield System(gateway_url, key, store_url, kafka, place.outbox, parts, links, disk, chance, session)


def _find_kafka() -> None:
    """Only what runs as a process of ours can be killed as one: not a broker of others, nor one in a container."""
    if not os.environ.get("KAFKA_HOME") and _BESIDE.is_dir():
        os.environ["KAFKA_HOME"] = str(_BESIDE)
    if not os.environ.get("KAFKA_HOME"):
        raise FlywheelError(
            "chaos kills its own broker: unpack Apache Kafka 4 and name its folder in KAFKA_HOME"
        )


def _python(module: str, *arguments: str) -> Program:
    return Program(
        name=module,
        command=(sys.executable, "-m", module, *arguments),
        environment={},
        ready=process.at_once,
        log=Path(),
        folder=ROOT,
        ready_seconds=60.0,
        mend="",
    )


def _key(store_url: str) -> str:
    store = Store.open(store_url)
    try:
        return Keys(store).create("chaos", ["invoke", "rate"])
    finally:
        store.close()


def _ports(count: int) -> tuple[int, ...]:
    """Consecutive ones that are free, and below those that the kernel gives to outgoing connections.

    They have to stay free while the program that listens there is dead.
    """
    taken = {found.laddr.port for found in psutil.net_connections("tcp") if found.laddr}
    start = random.choice([port for port in _PORTS if taken.isdisjoint(range(port, port + count))])
    return tuple(range(start, start + count))
