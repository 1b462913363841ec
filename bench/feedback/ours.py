"""Each leg as Flywheel goes it. A side is a context; given events it prepares, and returns what is to be timed."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import uvloop

from bench.feedback.place import APPENDERS, Place, batches
from bench.feedback.visible import visible
from feedback.collector import Collector, prepare_process
from feedback.delivery_process import delivering_apart
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
    """Batches of events into the store, in a process like that of the collector: parsed, checked, written."""
    prepare_process()
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


@contextmanager
def whole(place: Place) -> Iterator[Prepare]:
    """Appended by this process, delivered by another, collected by a third, until readers of the store see them."""
    assert place.kafka is not None
    Store.open(place.store_url).close()
    collecting = (sys.executable, "-m", "feedback.bus.kafka.collecting", place.kafka.model_dump_json())
    delivering = delivering_apart(place.outbox, None, place.store_url, place.kafka)
    with ExitStack() as stack:
        stack.callback(ended, subprocess.Popen((*collecting, place.store_url)))
        seen = stack.enter_context(visible(place.store_url))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        delivery = runner.run(delivering.__aenter__())
        stack.callback(lambda: runner.run(delivering.__aexit__(None, None, None)))

        def prepare(events: Sequence[bytes]) -> Callable[[], None]:
            def run() -> None:
                runner.run(_append(delivery.append_encoded, events))
                seen(events)

            return run

        yield prepare


def ended(process: subprocess.Popen[bytes]) -> None:
    """End it, in order if it will."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _append(append: Callable[[bytes], Coroutine[Any, Any, None]], events: Sequence[bytes]) -> None:
    left = iter(events)

    async def one() -> None:
        for body in left:  # shared: whoever is done takes the next
            await append(body)

    async with asyncio.TaskGroup() as appenders:
        for _ in range(APPENDERS):
            appenders.create_task(one())
