"""Each leg as Flywheel goes it. A side is a context; given events it prepares, and returns what is to be timed."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import uvloop

from bench.feedback.place import APPENDERS, Place, batches
from feedback.collector import Collector
from feedback.outbox import Outbox
from feedback.relay import Relay
from feedback.store import Store

Prepare = Callable[[Sequence[bytes]], Callable[[], None]]


@contextmanager
def outbox(place: Place) -> Iterator[Prepare]:
    """Many that each append one event after another, as many answers do that are given at once."""
    with ExitStack() as stack:
        box = Outbox(place.outbox)
        stack.callback(box.close)
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        yield lambda events: lambda: runner.run(_append(box.append_encoded, events))


@contextmanager
def relay(place: Place) -> Iterator[Prepare]:
    """A full outbox into Kafka: read, published, deleted."""
    from feedback.bus.kafka.producer import KafkaBus  # noqa: PLC0415  # kafka-python may not be installed

    assert place.kafka is not None
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        box = Outbox(place.outbox)
        stack.callback(box.close)
        bus = KafkaBus(place.kafka)
        stack.callback(lambda: runner.run(bus.close()))
        relay = Relay(box, bus)

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            for batch in batches(events):
                box.write(batch)
            return lambda: runner.run(relay.drain())

        yield prepare


@contextmanager
def collector(place: Place) -> Iterator[Prepare]:
    """Batches of events into the store: parsed, checked, written."""
    store = Store.open(place.store_url)
    collector = Collector(store)

    def prepare(events: Sequence[bytes]) -> Callable[[], None]:
        def run() -> None:
            for batch in batches(events):
                collector.collect(batch)

        return run

    try:
        yield prepare
    finally:
        store.close()


async def _append(append: Callable[[bytes], Coroutine[Any, Any, None]], events: Sequence[bytes]) -> None:
    left = iter(events)

    async def one() -> None:
        for body in left:  # shared: whoever is done takes the next
            await append(body)

    async with asyncio.TaskGroup() as appenders:
        for _ in range(APPENDERS):
            appenders.create_task(one())
