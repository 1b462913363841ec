"""Rates that one process counts, or the leader for its workers, or a real Redis for all: the same promises."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.limits.rates import LocalRates, Rate, Taken
from gateway.limits.redis_counter import RedisCounter
from gateway.limits.shared import SharedRates
from gateway.workers.counter import LeaderCounter, counted
from gateway.workers.peers import Peers
from gateway.workers.place import Place
from tests.contracts.rates import RatesContract, rate
from tests.gateway.redis_server import RedisServer, redis_server


class _Local:
    def __init__(self) -> None:
        self._rates = LocalRates()

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        return self._rates.take(rates, costs)

    async def correct(self, rate: Rate, amount: int) -> None:
        self._rates.correct(rate, amount)


class _Shared:
    def __init__(self, rates: SharedRates) -> None:
        self.rates = rates

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        taken = await self.rates.take(rates, costs)
        assert taken.shared
        return taken

    async def correct(self, rate: Rate, amount: int) -> None:
        self.rates.correct(rate, amount)
        await self.rates.flush()


class TestLocalRates(RatesContract):
    @pytest.fixture
    def rates(self) -> _Local:
        return _Local()


class _Leader(Peers):
    """The worker that leads, without a socket in between."""

    def __init__(self) -> None:
        super().__init__(Place(1, 2))
        self.rates = LocalRates()

    async def ask(
        self, number: int, method: str, path: str, body: object = None, *, seconds: float | None
    ) -> Any:
        assert (number, method, path) == (0, "POST", "/rates")
        return orjson.loads(orjson.dumps(counted(self.rates, orjson.loads(orjson.dumps(body)))))


class TestRatesOfTheLeader(RatesContract):
    @pytest.fixture
    def rates(self) -> _Shared:
        return _Shared(SharedRates(LeaderCounter(_Leader()), LocalRates()))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
async def shared(server: RedisServer) -> AsyncIterator[SharedRates]:
    rates = SharedRates(RedisCounter(server.url, seconds=5), LocalRates())
    await redis_of(rates).flushall()
    yield rates
    await rates.close()


def redis_of(rates: SharedRates) -> Redis:
    assert isinstance(rates._counter, RedisCounter)
    return rates._counter._redis


class TestSharedRates(RatesContract):
    @pytest.fixture
    def rates(self, shared: SharedRates) -> _Shared:
        return _Shared(shared)

    async def test_two_processes_share_them(self, shared: SharedRates, server: RedisServer):
        other = SharedRates(RedisCounter(server.url, seconds=5), LocalRates())
        results = await asyncio.gather(
            *(process.take([rate()], [1]) for process in (shared, other) for _ in range(5))
        )
        await other.close()
        assert sum(result.refused is None for result in results) == 5

    async def test_redis_forgets_a_bucket_when_it_is_full_again(self, shared: SharedRates):
        await shared.take([rate()], [1])
        [name] = await redis_of(shared).keys()
        assert 11_000 < await redis_of(shared).pttl(name) <= 12_000
        shared.correct(rate(), -1)
        await shared.flush()
        assert await redis_of(shared).keys() == []

    async def test_corrections_travel_together_and_are_not_waited_for(self, shared: SharedRates):
        running = asyncio.create_task(shared.run())
        await shared.take([rate(100)], [100])
        for _ in range(50):
            shared.correct(rate(100), -1)
        async with asyncio.timeout(5):
            while (await shared.take([rate(100)], [0])).full_in[0] > 31:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_while_redis_is_down_each_process_limits_for_itself_and_shares_again_after(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("gateway.limits.shared._PAUSE", 0.05)
    with redis_server() as server:
        rates = SharedRates(RedisCounter(server.url, seconds=2), LocalRates())
        assert (await rates.take([rate()], [1])).shared
        server.stop()
        alone = [await rates.take([rate()], [1]) for _ in range(6)]
        assert not any(taken.shared for taken in alone)
        assert [taken.refused for taken in alone] == [None] * 5 + [0]
        rates.correct(rate(), 3)
        await rates.flush()  # kept, for Redis does not answer
        server.start()
        await asyncio.sleep(0.1)
        await rates.flush()
        again = await rates.take([rate()], [1])
        assert again.shared and rate().remaining(again.full_in[0]) == 1
        await rates.close()
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "Redis does not answer",
        "Redis answers again: rates are shared",
    ]


async def test_a_redis_that_hangs_holds_a_request_up_once_and_briefly():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    rates = SharedRates(RedisCounter(f"redis://127.0.0.1:{port}", seconds=0.05), LocalRates())
    loop = asyncio.get_running_loop()
    started = loop.time()
    results = [await rates.take([rate(100)], [1]) for _ in range(20)]
    assert loop.time() - started < 0.9  # not 20 times the wait, and less than the pause
    assert all(result.refused is None and not result.shared for result in results)
    await rates.close()
    listener.close()
    await listener.wait_closed()


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 70), st.integers(0, 60)), min_size=1, max_size=40),
)
def test_no_stretch_of_time_lets_more_pass_than_a_bucket_and_what_came_back_in_it(
    limit: int, steps: list[tuple[float, int]]
):
    now = 0.0
    rates = LocalRates(lambda: now)
    passed: list[tuple[float, int]] = []
    for wait, cost in steps:
        now += wait
        if rates.take([rate(limit)], [cost]).refused is None:
            passed.append((now, cost))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            seconds = passed[last][0] - passed[first][0]
            assert sum(cost for _, cost in passed[first : last + 1]) <= limit * (1 + seconds / 60) + 1e-3


def test_no_edge_of_a_window_lets_twice_the_limit_pass():
    now = 59.9
    rates = LocalRates(lambda: now)
    assert rates.take([rate(60)], [60]).refused is None
    now = 60.1
    assert rates.take([rate(60)], [1]).refused == 0


def test_full_buckets_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.limits.rates._PRUNE_AT", 10)
    now = 0.0
    rates = LocalRates(lambda: now)
    for number in range(1_000):
        now += 13
        rates.take([rate(name=str(number))], [1])
    assert len(rates._full_at) <= 11 + 10
