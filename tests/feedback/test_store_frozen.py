"""A PostgreSQL that has stopped and not ended: its sockets are open, and nobody answers."""

import asyncio
import threading
import time

import psycopg
import pytest
from sqlalchemy import text

from feedback.bus.local import LocalBus
from feedback.collector import Collector
from feedback.delivery import delivering
from feedback.store import Store, StoreError, watched
from tests.contracts.delivery import until
from tests.contracts.samples import rating


@pytest.fixture
def impatience(monkeypatch):
    monkeypatch.setattr(watched, "_SILENT_SECONDS", 0.3)
    monkeypatch.setattr(watched, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def store(own_postgres, impatience):
    store = Store.open(own_postgres.url)
    yield store
    store.close()


def test_nobody_waits_for_a_server_that_has_stopped_and_all_goes_on_when_it_does(own_postgres, store):
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
    with own_postgres.frozen():
        with pytest.raises(StoreError, match=r"timeout|stopped answering"):
            store.counts()
        with pytest.raises(StoreError, match=r"cannot open the store: .*timeout"):
            Store.open(own_postgres.url)
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


def test_those_who_come_right_behind_one_who_was_not_answered_do_not_wait_too(
    own_postgres, store, monkeypatch
):
    monkeypatch.setattr(watched, "_PAUSE_SECONDS", 60.0)
    with own_postgres.frozen():
        with pytest.raises(StoreError):
            store.counts()
        monkeypatch.setattr(watched.Watched, "connect", None)  # nobody gets so far
        with pytest.raises(StoreError, match="stopped answering"):
            store.counts()


async def test_what_is_delivered_meanwhile_is_in_the_store_once_when_it_goes_on(
    own_postgres, store, tmp_path
):
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
        with own_postgres.frozen():
            await until(lambda: delivery.failures > 0)
        await until(lambda: delivery.depth().events < 50)
        enough.set()
        await appending
    assert sorted(each.event_id for each in store.ratings(tenant="default")) == sorted(taken)
