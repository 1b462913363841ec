"""What rates must do, whether one process counts them or all share them. A subclass has the fixture `rates`."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import pytest

from gateway.limits.rates import Rate, Taken


class Rates(Protocol):
    """Either kind, seen alike."""

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken: ...

    async def correct(self, rate: Rate, amount: int) -> None: ...


def rate(limit: int = 5, name: str = "{t}:key:a:requests") -> Rate:
    return Rate(name, "requests", limit, "key")


class RatesContract:
    async def test_a_minutes_worth_can_be_taken_at_once_and_no_more(self, rates: Rates):
        for taken in range(1, 6):
            result = await rates.take([rate()], [1])
            assert result.refused is None
            assert result.full_in[0] == pytest.approx(12 * taken, abs=1)
            assert rate().remaining(result.full_in[0]) == 5 - taken
        refused = await rates.take([rate()], [1])
        assert refused.refused == 0
        assert refused.wait == pytest.approx(12, abs=1)
        assert refused.full_in[0] == pytest.approx(60, abs=1)

    @pytest.mark.parametrize("limit", [1, 3, 7, 13, 97])
    async def test_rounding_neither_gives_nor_costs_a_unit(self, rates: Rates, limit: int):
        many = rate(limit)
        for cost in (limit // 3, limit // 3, limit - 2 * (limit // 3)):
            assert (await rates.take([many], [cost])).refused is None
        assert (await rates.take([many], [1])).refused == 0

    async def test_units_come_back_evenly(self, rates: Rates):
        quick = rate(6_000)  # one in 10 ms
        assert (await rates.take([quick], [6_000])).refused is None
        refused = await rates.take([quick], [20])
        assert refused.refused == 0
        await asyncio.sleep(refused.wait + 0.001)
        assert (await rates.take([quick], [20])).refused is None
        assert (await rates.take([quick], [2_000])).refused == 0

    async def test_all_are_taken_or_none(self, rates: Rates):
        wide, narrow = rate(100, "{t}:requests"), rate(10)
        assert (await rates.take([wide, narrow], [8, 8])).refused is None
        refused = await rates.take([wide, narrow], [8, 8])
        assert refused.refused == 1
        assert [r.remaining(s) for r, s in zip((wide, narrow), refused.full_in, strict=True)] == [92, 2]
        assert wide.remaining((await rates.take([wide], [0])).full_in[0]) == 92

    async def test_names_are_apart_and_the_same_name_is_shared(self, rates: Rates):
        assert (await rates.take([rate()], [5])).refused is None
        assert (await rates.take([rate(name="{t}:key:b:requests")], [5])).refused is None
        assert (await rates.take([rate()], [1])).refused == 0

    async def test_what_was_taken_too_much_is_given_back(self, rates: Rates):
        await rates.take([rate(100)], [100])
        await rates.correct(rate(100), -60)
        result = await rates.take([rate(100)], [10])
        assert rate(100).remaining(result.full_in[0]) == 50

    async def test_nothing_beyond_a_full_bucket_is_given_back(self, rates: Rates):
        await rates.take([rate()], [1])
        await rates.correct(rate(), -50)
        assert (await rates.take([rate()], [5])).refused is None
        assert (await rates.take([rate()], [1])).refused == 0

    async def test_what_was_used_beyond_the_estimate_is_owed(self, rates: Rates):
        await rates.take([rate(60)], [10])
        await rates.correct(rate(60), 80)
        refused = await rates.take([rate(60)], [1])
        assert refused.refused == 0
        assert refused.wait == pytest.approx(31, abs=1)
        assert rate(60).remaining(refused.full_in[0]) == 0
        assert (await rates.take([rate(60)], [0])).refused == 0

    async def test_more_than_a_bucket_holds_is_never_given(self, rates: Rates):
        assert (await rates.take([rate()], [6])).refused == 0
        assert (await rates.take([rate()], [5])).refused is None
