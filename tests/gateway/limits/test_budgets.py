"""Budgets hold over restarts and over several processes, and what was spent is never forgotten on the way."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feedback.quota import Quota
from feedback.store import Slot, Spent, Store, StoreError, Usage
from gateway.limits.budgets import Account, Budget, Budgets, Overdrawn, budgets_of

DAY = Budget("key:a", "day", 100, None, "key")
MONTH = Budget("tenant:t", "month", None, 1_000, "tenant")


class Clock:
    now = datetime(2026, 1, 31, 23, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[Usage]:
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    yield Usage(store)
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budgets(usage: Usage, clock: Clock) -> Budgets:
    return Budgets(usage, clock)


async def held(budgets: Budgets, *wanted: Budget, tokens: int = 0, money: int = 0) -> list[Account]:
    result = await budgets.hold(wanted, tokens, money)
    assert not isinstance(result, Overdrawn)
    return result


async def refused(budgets: Budgets, *wanted: Budget, tokens: int = 0, money: int = 0) -> Overdrawn:
    result = await budgets.hold(wanted, tokens, money)
    assert isinstance(result, Overdrawn)
    return result


async def test_what_is_held_for_requests_in_progress_is_not_given_twice(budgets: Budgets):
    accounts = await held(budgets, DAY, tokens=70)
    over = await refused(budgets, DAY, tokens=31)
    assert (over.budget, over.unit, over.left, over.seconds) == (DAY, "tokens", 30, 3_600)
    budgets.settle(accounts, Spent(70), Spent(20))
    await held(budgets, DAY, tokens=80)


async def test_an_empty_budget_refuses_what_costs_nothing_too(budgets: Budgets):
    await held(budgets, DAY, tokens=100)
    assert (await refused(budgets, DAY)).left == 0


async def test_all_budgets_are_held_or_none(budgets: Budgets):
    over = await refused(budgets, DAY, MONTH, tokens=10, money=1_001)
    assert (over.budget, over.unit, over.left) == (MONTH, "money", 1_000)
    await held(budgets, DAY, tokens=100)


async def test_more_than_was_left_may_have_been_used_and_is_spent(budgets: Budgets):
    accounts = await held(budgets, DAY, tokens=90)
    budgets.settle(accounts, Spent(90), Spent(130))
    assert (await refused(budgets, DAY)).left == 0


async def test_a_restart_forgets_nothing_that_was_saved(budgets: Budgets, usage: Usage, clock: Clock):
    accounts = await held(budgets, DAY, MONTH, tokens=60, money=600)
    budgets.settle(accounts, Spent(60, 600), Spent(60, 600))
    await budgets.save()
    again = Budgets(usage, clock)
    assert (await refused(again, DAY, tokens=41)).left == 40
    assert (await refused(again, MONTH, money=401)).left == 400


async def test_processes_hear_of_each_other_when_they_save(budgets: Budgets, usage: Usage, clock: Clock):
    other = Budgets(usage, clock)
    for process in (budgets, other):
        process.settle(await held(process, DAY, tokens=50), Spent(50), Spent(50))
    for process in (budgets, other, budgets):
        await held(process, DAY)  # in use: what others spend is asked for
        await process.save()
    for process in (budgets, other):
        assert (await refused(process, DAY)).left == 0
    assert usage.add({Slot("key:a", "2026-01-31"): Spent()}) == {Slot("key:a", "2026-01-31"): Spent(100)}


async def test_what_the_store_does_not_take_is_tried_again(
    budgets: Budgets, usage: Usage, monkeypatch: pytest.MonkeyPatch
):
    budgets.settle(await held(budgets, DAY, tokens=50), Spent(50), Spent(50))

    def down(_: object) -> dict[Slot, Spent]:
        raise StoreError("down")

    with monkeypatch.context() as broken:
        broken.setattr(usage, "add", down)
        with pytest.raises(StoreError):
            await budgets.save()
        assert (await refused(budgets, DAY, tokens=51)).left == 50
        with pytest.raises(StoreError):
            await budgets.hold([MONTH], 0, 1)
    await budgets.save()
    await budgets.save()
    assert usage.add({Slot("key:a", "2026-01-31"): Spent()})[Slot("key:a", "2026-01-31")] == Spent(50)


async def test_a_new_day_and_a_new_month_begin_at_midnight_in_utc(
    budgets: Budgets, clock: Clock, usage: Usage
):
    late = await held(budgets, DAY, MONTH, tokens=100, money=1_000)
    clock.now += timedelta(hours=1)
    await held(budgets, DAY, MONTH, tokens=100, money=1_000)
    over = await refused(budgets, MONTH, money=1)
    assert over.seconds == 28 * 86_400
    await budgets.save()
    budgets.settle(late, Spent(100, 1_000), Spent(90, 900))
    await budgets.save()
    spent = usage.add(dict.fromkeys((Slot("key:a", "2026-01-31"), Slot("tenant:t", "2026-01")), Spent()))
    assert set(spent.values()) == {Spent(90, 900)}
    assert {slot.period for slot in budgets._accounts} == {"2026-02-01", "2026-02"}


def test_only_what_is_limited_is_a_budget():
    assert budgets_of("s", Quota(requests_per_minute=1, tokens_per_day="unlimited"), "key") == []
    assert budgets_of("s", Quota(tokens_per_day=5, money_per_month=0.5), "key") == [
        Budget("s", "day", 5, None, "key"),
        Budget("s", "month", None, 500_000, "key"),
    ]
