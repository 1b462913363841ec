"""Flywheel on Kafka and PostgreSQL, on a disk that can be filled and behind links that can be cut."""

import asyncio
import functools
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
import psutil

from bench.chaos.clients import MODEL
from bench.chaos.disk import Disk
from bench.chaos.parts import Part, kept, no_orphans
from bench.chaos.plan import Cut, FullDisk, Incident, Kill, Server, Slow
from bench.chaos.proxy import Link, linked
from deploy import broker, postgres, process
from deploy.errors import FlywheelError
from deploy.process import Program
from feedback.bus.kafka import topics
from feedback.bus.kafka.lag import lag
from feedback.bus.kafka.options import KafkaOptions
from feedback.outbox import Reader
from feedback.store import Keys, Store
from gateway.config import GatewayConfig
from tests.gateway.processes import model_server

ROOT = Path(__file__).parents[2]
_BESIDE = ROOT.parent / "shared" / "kafka"
_COLLECTORS = 2
_PORTS = range(20_000, 30_000)
_SOCKET = ".s.PGSQL.5432"
_POLL_SECONDS = 0.5


class _Place(Protocol):
    """Where everything is to be."""

    disk: Path
    logs: Path


@dataclass(frozen=True)
class Place:
    """Where things are to lie: data on `disk`, which can be full, and the rest beside it."""

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
        """Let it happen. A program that is about to be killed may first have to be started."""
        match incident:
            case Kill("delivery"):
                await self.parts["gateway"].kill("feedback.delivery_process")
            case Kill("collector"):
                await self.parts[self.chance.choice(_COLLECTORS)].kill()
            case Kill(victim):
                await self.parts[victim].kill()
            case Cut(server):
                self.links[server].cut()
            case Slow(server, held_up, seconds):
                self.links[server].slow(held_up, seconds)
            case FullDisk(seconds):
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
        """Return when nothing waits any more, neither in the outbox nor on a topic. Raises `OutboxError`, `BusError`."""
        reader = Reader(self.outbox)
        try:
            while reader.depth().events:
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            reader.close()
        while any((await asyncio.to_thread(lag, self.kafka)).values()):
            await asyncio.sleep(_POLL_SECONDS)
