"""When a broker dies or is not there: on a broker of this file's own, which is killed."""

import asyncio
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import psutil
import pytest

from deploy import process
from deploy.errors import FlywheelError
from feedback import delivery
from feedback.bus.base import BusError
from feedback.bus.kafka import clients, producer, topics
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import KafkaBus
from feedback.delivery import delivering
from tests.contracts.bus import as_json
from tests.contracts.delivery import until
from tests.contracts.samples import change, rating
from tests.feedback.bus.kafka.conftest import collected, collecting
from tests.servers import free_port_and_next, kafka_program


class Broker:
    """One that can be killed, and started again on what it had."""

    def __init__(self, folder):
        self.port = free_port_and_next()
        try:
            self._program = kafka_program(folder, self.port)
        except FlywheelError as error:
            pytest.skip(str(error))

    @property
    def options(self):
        return KafkaOptions(bootstrap_servers=(f"127.0.0.1:{self.port}",), partitions=3)

    @asynccontextmanager
    async def running(self):
        async with aiohttp.ClientSession() as session, process.running(self._program) as running:
            await running.ready(session)
            self._pid = running.pid
            yield

    def kill(self):
        for child in psutil.Process(self._pid).children(recursive=True):
            child.kill()


@contextmanager
def impatience():
    """What is not there is given up sooner."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clients, "_BOOTSTRAP_MS", 500)
        patched.setattr(producer, "_REQUEST_MS", 500)
        patched.setattr(producer, "_DELIVERY_MS", 1_500)
        patched.setattr(producer, "_WAIT_SECONDS", 2.0)
        patched.setattr(delivery, "EMPTY_SECONDS", 0.5)
        yield


async def test_a_broker_that_is_killed_costs_no_event_and_a_gateway_starts_without_it(tmp_path, store):
    """Both in one, for a broker takes seconds to start."""
    broker = Broker(tmp_path / "kafka")
    published: list[str] = []
    refused = 0

    async def publish(bus, batches):
        nonlocal refused
        for number in batches:
            batch = [rating(f"r{number}-{n}") for n in range(20)]
            published.extend(each.event_id for each in batch)
            while True:
                try:
                    await bus.publish(as_json(*batch))
                    break
                except BusError:  # as the relay does
                    refused += 1
                    await asyncio.sleep(0.1)

    def begun():
        bus = KafkaBus(broker.options, f"sqlite:///{tmp_path}/store.db")
        return bus, delivering(tmp_path / "outbox.db", None, bus)

    with impatience():
        async with broker.running():
            await asyncio.to_thread(topics.create, broker.options)
            bus = KafkaBus(broker.options)
            await publish(bus, range(5))
            flowing = asyncio.create_task(publish(bus, range(5, 60)))
            await until(lambda: len(published) > 200)
            broker.kill()
        other, gateway = begun()
        async with gateway as taking:
            await taking.append(change("sql-analyst@1", "candidate"))
            await taking.append(rating("waits"))
            assert taking.depth().events == 2
        await other.close()
        await until(lambda: refused > 0)
    async with broker.running():
        other, gateway = begun()
        async with gateway as taking:
            assert taking.depth().events == 0
            assert [found.policy for found in store.policy_changes("sql-analyst")] == ["sql-analyst@1"]
        await other.close()
        await flowing
        await bus.close()
        with collecting(broker.options, store):
            await collected(broker.options)
    found = {each.request_id: each.event_id for each in store.ratings(tenant="default")}
    assert found.pop("waits")
    assert sorted(found.values()) == sorted(published)
    assert len(published) == 60 * 20
