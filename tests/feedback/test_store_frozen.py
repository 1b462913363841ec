"""A PostgreSQL that has stopped and not ended: its sockets are open, and nobody answers. On one of this file's own."""

import asyncio
import os
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import text

from deploy import postgres, process
from deploy.errors import FlywheelError
from feedback.bus.local import LocalBus
from feedback.collector import Collector
from feedback.delivery import delivering
from feedback.store import Store, StoreError, watched
from tests.contracts.delivery import until
from tests.contracts.samples import rating


class Server:
    def __init__(self, url, pid):
        self.url = url
        self._pid = pid

    @contextmanager
    def frozen(self):
        stopped = psutil.Process(self._pid).children(recursive=True)
        for each in stopped:  # the postmaster first: it starts no more
            each.suspend()
        try:
            yield
        finally:
            for each in stopped:
                each.resume()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    with tempfile.TemporaryDirectory(prefix="flywheel-tests-") as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "s"
        try:
            program = postgres.program(folder, logs=folder, durable=False)
        except FlywheelError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        async with aiohttp.ClientSession() as session, process.running(program) as running:
            await running.ready(session)
            yield Server(f"{postgres.url(folder)}&connect_timeout=2", running.pid)


@pytest.fixture
def impatience(monkeypatch):
    monkeypatch.setattr(watched, "_SILENT_SECONDS", 0.3)
    monkeypatch.setattr(watched, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def store(server, impatience):
    store = Store.open(server.url)
    yield store
    store.close()


def test_nobody_waits_for_a_server_that_has_stopped_and_all_goes_on_when_it_does(server, store):
    before = store.counts()
    outcomes = []

    def read():
        try:
            with store.reading() as connection:
                connection.execute(text("SELECT pg_sleep(0.5)"))
        except StoreError as error:
            outcomes.append(str(error))

    reading = threading.Thread(target=read)
    reading.start()
    time.sleep(0.2)  # it has asked, and is not answered yet
    with server.frozen():
        with pytest.raises(StoreError, match=r"timeout|stopped answering"):
            store.counts()
        with pytest.raises(StoreError, match=r"cannot open the store: .*timeout"):
            Store.open(server.url)
        reading.join(10)
    assert outcomes == ["the server has stopped answering"]
    assert store.counts() == before


def test_a_server_that_is_busy_is_waited_for(store):
    with store.reading() as connection:
        assert connection.execute(text("SELECT 1 FROM pg_sleep(1.5)")).scalar_one() == 1


def test_a_server_that_refuses_another_connection_is_alive(store, monkeypatch):
    asked = []

    def refused(_, told):
        asked.append(told)
        raise psycopg.OperationalError("FATAL: sorry, too many clients already")

    with store.reading() as connection:
        monkeypatch.setattr(watched.Opener, "_opened", refused)
        assert connection.execute(text("SELECT 1 FROM pg_sleep(0.8)")).scalar_one() == 1
    assert asked


def test_those_who_come_right_behind_one_who_was_not_answered_do_not_wait_too(server, store, monkeypatch):
    monkeypatch.setattr(watched, "_PAUSE_SECONDS", 60.0)
    with server.frozen():
        with pytest.raises(StoreError):
            store.counts()
        monkeypatch.setattr(watched.Watched, "connect", None)  # nobody gets so far
        with pytest.raises(StoreError, match="stopped answering"):
            store.counts()


async def test_what_is_delivered_meanwhile_is_in_the_store_once_when_it_goes_on(server, store, tmp_path):
    taken: list[str] = []
    enough = asyncio.Event()

    async def append():
        while not enough.is_set():
            event = rating(f"r{len(taken)}")
            await delivery.append(event)
            taken.append(event.event_id)
            await asyncio.sleep(0.001)

    async with delivering(tmp_path / "outbox.db", None, LocalBus(Collector(store))) as delivery:
        appending = asyncio.create_task(append())
        await until(lambda: store.counts()["ratings"] > 20)
        with server.frozen():
            await until(lambda: delivery.failures > 0)
        await until(lambda: delivery.depth().events < 50)
        appending.cancel()
        await asyncio.wait({appending})
    assert sorted(each.event_id for each in store.ratings(tenant="default")) == sorted(taken)
