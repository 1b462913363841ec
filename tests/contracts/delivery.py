"""What every delivery must do, seen from its two ends: what is appended, and what the store then holds."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from feedback.delivery import Delivery
from feedback.outbox import OutboxError
from feedback.store import Store
from tests.contracts.samples import rating, request

Opened = Callable[..., AbstractAsyncContextManager[Delivery]]
Hold = Callable[[], AbstractContextManager[None]]


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # the condition is a row in a file, or a process
            await asyncio.sleep(0.01)


async def append_for_ever(delivery: Delivery, taken: list[str]) -> None:
    while True:
        event = rating(comment="x" * 500)
        await delivery.append(event)
        taken.append(event.event_id)


@contextmanager
def busy(path: Path) -> Iterator[None]:
    """Whoever writes this database has to wait."""
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        file.close()


class DeliveryContract:
    """A subclass has the fixture `opened`: makes a delivery from `folder`/outbox.db to `folder`/store.db."""

    @pytest.fixture
    def folder(self, tmp_path: Path, store: Store) -> Path:
        return tmp_path

    @pytest.fixture
    def opened(self, folder: Path) -> Opened:
        raise NotImplementedError

    @pytest.fixture
    def hold(self, folder: Path) -> Hold:
        """While it is entered, nothing leaves the outbox."""
        return lambda: busy(folder / "store.db")

    async def arrived(self) -> None:
        """Wait until what has left the outbox is in the store. Where it is at once, there is nothing to wait for."""

    async def test_what_is_appended_reaches_the_store_in_its_order(self, opened: Opened, store: Store):
        asked = [request(f"r{n}") for n in range(300)]
        async with opened() as delivery:
            await asyncio.gather(*map(delivery.append, asked))
            await delivery.append_encoded(rating("r0").model_dump_json().encode())
            await until(lambda: delivery.depth().events == 0)
            await self.arrived()
        assert store.counts()["ratings"] == 1
        assert list(store.requests(tenant="default")) == asked

    async def test_an_end_delivers_what_was_appended(self, opened: Opened, store: Store):
        async with opened() as delivery:
            await asyncio.gather(*(delivery.append(rating(f"r{n}")) for n in range(50)))
        await self.arrived()
        assert store.counts()["ratings"] == 50
        with pytest.raises(OutboxError, match="closed"):
            await delivery.append(rating())

    async def test_what_the_last_run_left_is_delivered_before_this_one_begins(
        self, opened: Opened, store: Store, stop: Callable[[], Callable[[], None]]
    ):
        async with opened() as delivery:
            await delivery.check()
            start = stop()
            await delivery.append(request())
        start()
        assert store.request("r1", "default") is None
        async with opened() as delivery:
            assert delivery.depth().events == 0
            await self.arrived()
            assert store.request("r1", "default") is not None

    async def test_what_waits_is_seen_and_failures_are_counted(
        self, opened: Opened, store: Store, stop: Callable[[], Callable[[], None]]
    ):
        async with opened() as delivery:
            assert delivery.depth() == (0, 0.0)
            start = stop()
            event = request()
            await delivery.append(event)
            assert delivery.containing(b'"request_id":"r1"') == [event.model_dump_json().encode()]
            assert delivery.containing(b'"request_id":"r2"') == []
            await until(lambda: delivery.failures > 0)
            assert delivery.depth().events == 1
            start()
            await until(lambda: delivery.depth().events == 0)
        await self.arrived()
        assert store.request("r1", "default") is not None

    async def test_a_full_disk_refuses_and_says_so_until_there_is_room(
        self, opened: Opened, hold: Hold, store: Store
    ):
        taken: list[str] = []
        async with opened(max_bytes=65_536) as delivery:
            with hold():
                with pytest.raises(OutboxError, match="full"):
                    await append_for_ever(delivery, taken)
                with pytest.raises(OutboxError, match="full"):
                    await delivery.check()
            await until(lambda: delivery.depth().events == 0)
            await delivery.check()
            await delivery.append(rating("later"))
        await self.arrived()
        assert len(taken) > 20
        stored = [found.event_id for found in store.ratings(tenant="default")]
        assert stored[:-1] == taken

    async def test_an_event_that_is_no_unicode_text_is_refused_alone(self, opened: Opened, store: Store):
        async with opened() as delivery:
            answers = await asyncio.gather(
                delivery.append(rating(correction={"sql": "\ud800"})),
                delivery.append(rating()),
                return_exceptions=True,
            )
        await self.arrived()
        assert [type(answer) for answer in answers] == [OutboxError, type(None)]
        assert store.counts()["ratings"] == 1

    async def test_a_task_that_no_longer_waits_harms_nobody(self, opened: Opened, store: Store):
        async with opened() as delivery:
            gone = asyncio.create_task(delivery.append(rating("gone")))
            await asyncio.sleep(0)
            gone.cancel()
            await delivery.append(rating())
        await self.arrived()
        assert gone.cancelled()
        assert "r1" in [found.request_id for found in store.ratings(tenant="default")]

    async def test_a_file_that_is_no_outbox_is_refused(self, opened: Opened, folder: Path):
        (folder / "outbox.db").write_bytes(
            b"no database, but long enough to have a header of a hundred bytes" * 9
        )
        with pytest.raises(OutboxError, match="not a database"):
            async with opened():
                pass
