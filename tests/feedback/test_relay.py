import asyncio
from collections.abc import Sequence

import pytest

from feedback.bus import base
from feedback.bus.base import BusError
from feedback.events import Rating
from feedback.outbox import OutboxError
from feedback.relay import Relay
from tests.contracts.samples import rating


class Bus(base.Bus):
    """Keeps what it was given, and refuses as often as it is told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.batches: list[list[bytes]] = []

    async def publish(self, batch: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        if self.refusals:
            self.refusals -= 1
            raise BusError("down")
        self.batches.append(list(batch))

    def names(self):
        return [Rating.model_validate_json(body).request_id for batch in self.batches for body in batch]


async def append(outbox, *names):
    for name in names:
        await outbox.append(rating(name))


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # the condition is a row in a file
            await asyncio.sleep(0.005)


@pytest.fixture
def running():
    """Start a relay's `run`, and cancel it at the end."""
    tasks = []

    def start(relay):
        tasks.append(asyncio.create_task(relay.run()))
        return relay

    yield start
    for task in tasks:
        task.cancel()


async def test_drain_moves_everything_in_order_and_in_batches(outbox):
    await append(outbox, *"abcde")
    bus = Bus()
    await Relay(outbox, bus, batch=2).drain()
    assert bus.names() == list("abcde")
    assert [len(batch) for batch in bus.batches] == [2, 2, 1]
    assert outbox.depth().events == 0


async def test_what_the_bus_refused_stays(outbox):
    await append(outbox, *"abc")
    relay = Relay(outbox, Bus(refusals=1))
    with pytest.raises(BusError):
        await relay.drain()
    assert outbox.depth().events == 3


async def test_an_append_wakes_a_relay_that_has_nothing_to_do(outbox, running):
    bus = Bus()
    running(Relay(outbox, bus, poll=60))
    await asyncio.sleep(0.05)
    await append(outbox, "a")
    await until(lambda: bus.names() == ["a"])


async def test_what_another_process_appended_is_found_by_the_poll(outbox, running):
    bus = Bus()
    running(Relay(outbox, bus, poll=0.02))
    await asyncio.sleep(0.05)
    body = rating("a").model_dump_json().encode()
    with outbox._transaction():
        outbox._writer.execute("INSERT INTO outbox (time, body) VALUES (0, ?)", (body,))
    await until(lambda: bus.names() == ["a"])


async def test_a_bus_that_is_down_is_tried_ever_later_and_logged_and_loses_nothing(outbox, running, caplog):
    await append(outbox, *"abc")
    bus = Bus(refusals=4)
    relay = running(Relay(outbox, bus, first_delay=0.01, longest_delay=0.04))
    await until(lambda: outbox.depth().events == 0)
    assert bus.names() == list("abc")
    assert relay.failures == 4
    assert [record.args[0] for record in caplog.records] == [0.01, 0.02, 0.04, 0.04]


async def test_run_and_drain_together_publish_each_event_once(outbox, running):
    await append(outbox, *map(str, range(100)))
    bus = Bus()
    relay = Relay(outbox, bus, batch=7)
    running(relay)
    await relay.drain()
    assert bus.names() == [str(n) for n in range(100)]


async def test_a_deletion_that_fails_publishes_the_batch_again(outbox, running, monkeypatch):
    """At least once: a duplicate is harmless, for the store is idempotent; a loss is not."""
    await append(outbox, "a")
    bus, delete, failures = Bus(), outbox.delete, [OutboxError("the disk is full")]

    def fail_once(up_to):
        if failures:
            raise failures.pop()
        delete(up_to)

    monkeypatch.setattr(outbox, "delete", fail_once)
    running(Relay(outbox, bus, first_delay=0.01))
    await until(lambda: outbox.depth().events == 0)
    assert bus.names() == ["a", "a"]


async def test_what_was_moved_is_nowhere_in_the_files_when_nothing_has_come_for_a_while(
    outbox, running, tmp_path
):
    def written():
        return b"".join(path.read_bytes() for path in tmp_path.glob("outbox*"))

    running(Relay(outbox, Bus(), poll=0.05))
    for size in (1, 100, 2_000):
        await asyncio.gather(*(outbox.append(rating(comment="MY WORDS " * size)) for _ in range(20)))
        assert b"MY WORDS" in written()
        await until(lambda: b"MY WORDS" not in written())
    assert outbox.depth().events == 0
