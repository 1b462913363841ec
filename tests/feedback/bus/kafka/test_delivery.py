import asyncio
import os
import signal
from contextlib import contextmanager

import pytest

from feedback.delivery import delivering
from feedback.delivery_process import delivering_apart
from tests.contracts.delivery import DeliveryContract, until
from tests.contracts.samples import change, rating, request
from tests.feedback.bus.kafka.conftest import collected, collecting


class TestOverKafka(DeliveryContract):
    """What is delivered is on Kafka, and the collector's a moment later: `arrived` waits for that.

    So what the last run left is on its topics when the next begins, policy changes alone in the store (see below).
    """

    @pytest.fixture(autouse=True)
    def _collected(self, options, store):
        self.options = options
        with collecting(options, store):
            yield

    @pytest.fixture
    def stop(self, brokers_away):
        return brokers_away

    async def arrived(self):
        await collected(self.options)

    @pytest.fixture
    def opened(self, folder, bus):
        return lambda max_bytes=None: delivering(folder / "outbox.db", max_bytes, bus)

    @pytest.fixture
    def hold(self, stop):
        @contextmanager
        def hold():
            start = stop()
            yield
            start()

        return hold


async def test_what_is_appended_goes_by_kafka_into_the_store_though_the_process_that_delivers_is_killed(
    options, store, tmp_path
):
    url = f"sqlite:///{tmp_path}/store.db"
    asked = [request(f"r{n}") for n in range(100)]
    with collecting(options, store):
        async with delivering_apart(tmp_path / "outbox.db", None, url, options) as delivery:
            appending = [asyncio.create_task(delivery.append(each)) for each in asked]
            await asyncio.sleep(0.02)
            os.kill(delivery._process.pid, signal.SIGKILL)
            await asyncio.gather(*appending)
            await until(lambda: delivery.depth().events == 0)
            await collected(options)
            assert list(store.requests(tenant="default")) == asked
            await delivery.append(rating("at the end"))
        await collected(options)
    assert [found.request_id for found in store.ratings(tenant="default")] == ["at the end"]


async def test_a_policy_change_of_the_last_run_is_in_the_store_when_the_next_begins(options, store, tmp_path):
    url, changed = f"sqlite:///{tmp_path}/store.db", change("sql-analyst@1", "candidate")
    async with delivering_apart(tmp_path / "outbox.db", None, url, options) as delivery:
        await delivery.append(changed)
    assert store.policy_changes("sql-analyst") == []  # nobody collects
    async with delivering_apart(tmp_path / "outbox.db", None, url, options):
        assert store.policy_changes("sql-analyst") == [changed]
