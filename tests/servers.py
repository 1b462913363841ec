"""Kafka and PostgreSQL as they are, for the tests that need them: started once in a session, when first asked for.

A test keeps to itself by a topic prefix, or a database, of its own. Without a server a test is skipped, and told how to
get one; under CI it fails. Nothing is left behind, not even when the session is killed (`deploy/guard.py`).
"""

import contextlib
import os
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import aiohttp
import psutil
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy import make_url

from deploy import broker, postgres, process
from deploy.errors import FlywheelError
from deploy.process import Program
from feedback.store import Store

_BESIDE = Path(__file__).parents[2] / "shared" / "kafka"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_broker() -> AsyncIterator[str]:
    """Bootstrap servers, `host:port`."""
    if servers := broker.named():
        yield ",".join(servers)
        return
    port = free_port_and_next()
    async with _running(lambda folder: kafka_program(folder, port)):
        yield f"127.0.0.1:{port}"


def kafka_program(folder: Path, port: int, settings: Mapping[str, str] | None = None) -> Program:
    """A broker at this port, from KAFKA_HOME, the folder beside the checkout or Docker. Raises `FlywheelError`."""
    with pytest.MonkeyPatch.context() as environment:
        if "KAFKA_HOME" not in os.environ and _BESIDE.is_dir():
            environment.setenv("KAFKA_HOME", str(_BESIDE))
        environment.setenv("KAFKA_HEAP_MAX", os.environ.get("KAFKA_HEAP_MAX", "384m"))
        return broker.program(folder, port, logs=folder, durable=False, settings=settings or {})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_url() -> AsyncIterator[str]:
    """SQLAlchemy's URL of a server's own database, beside which others are made; see `fresh_database`."""
    async with _running(lambda folder: postgres.program(folder, logs=folder, durable=False)) as folder:
        yield postgres.url(folder)


class OwnPostgres:
    """A server of a file's own, for it may be stopped: its `url`, where little patience is asked for."""

    def __init__(self, folder: Path, guard: int) -> None:
        self.url = f"{postgres.url(folder)}&connect_timeout=2"
        self._guard = guard

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It has stopped, and holds its sockets open."""
        stopped = psutil.Process(self._guard).children(recursive=True)
        for each in stopped:  # who makes the others comes first
            each.suspend()
        try:
            yield
        finally:
            for each in stopped:
                each.resume()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_postgres() -> AsyncIterator[OwnPostgres]:
    """See `OwnPostgres`."""
    async with _started(lambda folder: postgres.program(folder, logs=folder, durable=False)) as (folder, pid):
        yield OwnPostgres(folder, pid)


@pytest.fixture
def fresh_database(postgres_url: str) -> Iterator[str]:
    """SQLAlchemy's URL of an empty database that is the test's alone; it is dropped at the end."""
    with database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def _migrated(postgres_url: str) -> Iterator[str]:
    with database(postgres_url) as url:
        Store.open(url).close()
        yield str(make_url(url).database)


@pytest.fixture
def postgres_store_url(postgres_url: str, _migrated: str) -> Iterator[str]:
    """SQLAlchemy's URL of an empty store that is the test's alone: every migration is there, copied from another."""
    with database(postgres_url, template=_migrated) as url:
        yield url


@contextlib.contextmanager
def database(server: str, template: str = "template1") -> Iterator[str]:
    """A database on the server, made as a copy of another and dropped at the end; its URL."""
    name = f"test_{uuid.uuid4().hex}"
    made, copied = sql.Identifier(name), sql.Identifier(template)
    with psycopg.connect(libpq(server), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(made, copied))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(made))


def libpq(url: str) -> str:
    """The same URL as libpq and psycopg write it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextlib.asynccontextmanager
async def _running(program: Callable[[Path], Program]) -> AsyncIterator[Path]:
    async with _started(program) as (folder, _):
        yield folder


@contextlib.asynccontextmanager
async def _started(program: Callable[[Path], Program]) -> AsyncIterator[tuple[Path, int]]:
    """Its folder, and the process that guards it."""
    # Not in pytest's folders: those are closed to the user that PostgreSQL runs as, and their paths long for a socket.
    with tempfile.TemporaryDirectory(prefix="flywheel-tests-") as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "s"
        try:
            wanted = program(folder)
        except FlywheelError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        async with aiohttp.ClientSession() as session, process.running(wanted) as running:
            await running.ready(session)
            yield folder, running.pid


def free_port_and_next() -> int:
    while True:
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            other.bind(("127.0.0.1", port + 1))
            return port
