"""The broker and the database that the legs need: Flywheel's own, started for the run, as durable as in production."""

import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psycopg
from psycopg import sql
from sqlalchemy import make_url

from bench.feedback.legs import LEGS
from bench.feedback.place import Place
from bench.feedback.visible import libpq
from deploy import broker, process
from deploy import postgres as pg
from feedback.bus.kafka import topics
from feedback.bus.kafka.options import KafkaOptions
from tests.gateway.processes import free_port

SIDES = ("ours", "raw")
_BESIDE = Path(__file__).parents[3] / "shared" / "kafka"


class Servers(NamedTuple):
    """Where they are; empty what was not asked for."""

    kafka: tuple[str, ...] = ()
    postgres: str = ""

    def places(self, folder: Path, leg: str) -> dict[str, Place]:
        """One for each side of a leg."""
        needs = LEGS[leg]
        return {side: self.place(folder, needs.store, kafka=needs.kafka) for side in SIDES}

    def place(self, folder: Path, store: str, *, kafka: bool) -> Place:
        """A folder, a database and topics that nobody has used."""
        name = f"bench_{uuid.uuid4().hex}"
        folder = folder / name
        folder.mkdir()
        url = f"sqlite:///{folder / 'store.db'}"
        if store == "postgresql":
            url = self._database(name)
        options = None
        if kafka:
            options = KafkaOptions(bootstrap_servers=self.kafka, prefix=name, group=name)
            topics.create(options)
        return Place(folder=folder, store_url=url, kafka=options)

    def _database(self, name: str) -> str:
        url = make_url(self.postgres)
        with psycopg.connect(libpq(self.postgres), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return url.set(database=name).render_as_string(hide_password=False)


@contextlib.asynccontextmanager
async def servers(folder: Path, *, kafka: bool, postgres: bool) -> AsyncIterator[Servers]:
    """A broker (of KAFKA_BOOTSTRAP_SERVERS, else one that is started) and a PostgreSQL. Raises `FlywheelError`."""
    if "KAFKA_HOME" not in os.environ and _BESIDE.is_dir():
        os.environ["KAFKA_HOME"] = str(_BESIDE)
    named, port = broker.named(), free_port()
    programs = [pg.program(folder / "p", logs=folder)] if postgres else []
    if kafka and not named:
        programs.append(broker.program(folder / "kafka", port, logs=folder))
        named = (f"127.0.0.1:{port}",)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for program in programs:
            running = await stack.enter_async_context(process.running(program))
            await running.ready(session)
        yield Servers(named, pg.url(folder / "p"))
