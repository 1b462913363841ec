import asyncio
import threading
import uuid
from contextlib import contextmanager

import pytest

from feedback.bus.base import BusError
from feedback.bus.kafka import clients, topics
from feedback.bus.kafka.collecting import Collecting
from feedback.bus.kafka.lag import lag
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import KafkaBus, Sender
from feedback.bus.kafka.reading import read
from feedback.collector import Collector
from feedback.redaction import RedactionOptions, Redactor


@pytest.fixture
def options(kafka_broker):
    """Topics of the test's own, with three partitions each."""
    prefix = f"t{uuid.uuid4().hex}"
    servers = tuple(kafka_broker.split(","))
    options = KafkaOptions(bootstrap_servers=servers, prefix=prefix, group=prefix, partitions=3)
    topics.create(options)
    return options


@pytest.fixture
async def bus(options):
    bus = KafkaBus(options)
    yield bus
    await bus.close()


@pytest.fixture
def brokers_away(bus, options, monkeypatch):
    """Nobody answers where the brokers should be. Returns what brings them back."""
    monkeypatch.setattr(clients, "_BOOTSTRAP_MS", 300)

    def stop():
        there = bus._sender
        bus._sender = Sender(options.model_copy(update={"bootstrap_servers": ("127.0.0.1:1",)}))

        def start():
            bus._sender = there

        return start

    return stop


@contextmanager
def collecting(options, store, redaction=None):
    """A collector in a thread of this process."""
    stop = threading.Event()
    thread = threading.Thread(
        target=Collecting(options, Collector(store), stop, Redactor(redaction or RedactionOptions())).run
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


async def collected(options, seconds=30):
    """Wait until the group has collected all that has been published."""
    async with asyncio.timeout(seconds):
        while await asyncio.to_thread(_behind, options):
            await asyncio.sleep(0.05)


def _behind(options):
    try:
        return any(lag(options).values())
    except BusError:  # a broker that has just been started has no coordinator of groups yet
        return True


def on_dead_letter_topic(options):
    """Each record's bytes and headers."""
    pages = read(options, [options.topic("dead-letter")])
    return [
        (record.value, {name: (value or b"").decode() for name, value in record.headers})
        for page in pages
        for record in page.records
    ]
