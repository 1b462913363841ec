"""Budgets of tokens and money, a day and a month in UTC. What has been spent is kept in the store, not in a cache.

Requests are judged by what this process knows: what the store held a second ago, what has been spent here since, and
what is held for requests in progress. So a check costs no input or output, a restart forgets at most the last second,
and several processes together may overdraw by what they spend within one.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from feedback.quota import CountLimit, MoneyLimit, Quota
from feedback.store import Slot, Spent, StoreError, Usage

_SAVE_SECONDS = 1.0

Period = Literal["day", "month"]

_log = logging.getLogger(__name__)


class Budget(NamedTuple):
    """What a subject may spend in a period; None: as much as it likes. `whose` is for the message to the client."""

    subject: str
    period: Period
    tokens: int | None
    money: int | None
    whose: str


class Overdrawn(NamedTuple):
    """The budget that has not enough left, what is left of it, and how many seconds are left of its period."""

    budget: Budget
    unit: Literal["tokens", "money"]
    left: int
    seconds: float


@dataclass(slots=True)
class Account:
    """What one subject has spent in one period, as far as this process knows; money in millionths."""

    saved_tokens: int = 0
    saved_money: int = 0
    new_tokens: int = 0  # spent here and not yet saved
    new_money: int = 0
    held_tokens: int = 0
    held_money: int = 0
    holds: int = 0

    def hold(self, tokens: int, money: int, sign: int = 1) -> None:
        """Keep so much for a request in progress; with -1, no longer."""
        self.held_tokens += sign * tokens
        self.held_money += sign * money
        self.holds += sign


class Budgets:
    """All accounts that are in use. `run` must run beside it: it saves what has been spent."""

    def __init__(self, usage: Usage, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._usage = usage
        self._now = now
        self._accounts: dict[Slot, Account] = {}
        self._touched: set[Slot] = set()
        self._periods: Mapping[Period, tuple[str, datetime]] = {}
        self._day_ends = datetime.min.replace(tzinfo=UTC)

    async def hold(self, budgets: Sequence[Budget], tokens: int, money: int) -> list[Account] | Overdrawn:
        """Keep so much of every budget for a request, or of none. Raises `StoreError` when one is not known yet.

        Waits for the store only when an account is used for the first time in its period.
        """
        now = self._now()
        slots = [Slot(budget.subject, self._current(budget.period, now)) for budget in budgets]
        if missing := [slot for slot in slots if slot not in self._accounts]:
            await self._load(missing)
        accounts = [self._accounts.setdefault(slot, Account()) for slot in slots]
        for budget, account in zip(budgets, accounts, strict=True):
            if (overdrawn := self._overdrawn(budget, account, tokens, money, now)) is not None:
                return overdrawn
        for account in accounts:
            account.hold(tokens, money)
        self._touched.update(slots)
        return accounts

    @staticmethod
    def settle(accounts: Sequence[Account], held: Spent, spent: Spent) -> None:
        """The request is over: what was kept for it is free, and what it used is spent."""
        for account in accounts:
            account.hold(held.tokens, held.money, -1)
            account.new_tokens += spent.tokens
            account.new_money += spent.money

    async def run(self) -> None:
        """Save every second, until cancelled."""
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            try:
                await self.save()
            except StoreError as error:
                _log.warning("what was spent of budgets is not saved yet: %s", error)

    async def save(self) -> None:
        """Add what has been spent here to the store, and learn what others have. Raises `StoreError`."""
        touched, self._touched = self._touched, set()
        asked = {
            slot
            for slot, account in self._accounts.items()
            if slot in touched or account.new_tokens or account.new_money
        }
        if not asked:
            return
        sent = {
            slot: Spent(self._accounts[slot].new_tokens, self._accounts[slot].new_money) for slot in asked
        }
        try:
            known = await asyncio.to_thread(self._usage.add, sent)
        except StoreError:
            self._touched |= asked
            raise
        for slot, spent in sent.items():
            account = self._accounts[slot]
            account.saved_tokens, account.saved_money = known[slot]
            account.new_tokens -= spent.tokens
            account.new_money -= spent.money
        self._forget_past()

    async def _load(self, missing: Sequence[Slot]) -> None:
        known = await asyncio.to_thread(self._usage.add, dict.fromkeys(missing, Spent()))
        for slot, spent in known.items():
            self._accounts.setdefault(slot, Account(spent.tokens, spent.money))

    def _overdrawn(
        self, budget: Budget, account: Account, tokens: int, money: int, now: datetime
    ) -> Overdrawn | None:
        ends = self._periods[budget.period][1]
        if budget.tokens is not None:
            left = budget.tokens - account.saved_tokens - account.new_tokens - account.held_tokens
            if tokens > left or left <= 0:
                return Overdrawn(budget, "tokens", max(0, left), (ends - now).total_seconds())
        if budget.money is not None:
            left = budget.money - account.saved_money - account.new_money - account.held_money
            if money > left or left <= 0:
                return Overdrawn(budget, "money", max(0, left), (ends - now).total_seconds())
        return None

    def _current(self, period: Period, now: datetime) -> str:
        if now >= self._day_ends:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            self._day_ends = midnight + timedelta(days=1)
            next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
            self._periods = {
                "day": (f"{now:%Y-%m-%d}", self._day_ends),
                "month": (f"{now:%Y-%m}", next_month),
            }
        return self._periods[period][0]

    def _forget_past(self) -> None:
        current = {name for name, _ in self._periods.values()}
        over = [
            slot
            for slot, account in self._accounts.items()
            if slot.period not in current and not (account.holds or account.new_tokens or account.new_money)
        ]
        for slot in over:
            del self._accounts[slot]


def budgets_of(subject: str, quota: Quota, whose: str) -> list[Budget]:
    """The budgets that a quota sets."""
    periods: tuple[tuple[Period, CountLimit, MoneyLimit], ...] = (
        ("day", quota.tokens_per_day, quota.money_per_day),
        ("month", quota.tokens_per_month, quota.money_per_month),
    )
    found = []
    for period, tokens, money in periods:
        most_tokens = tokens if isinstance(tokens, int) else None
        most_money = None if money is None or isinstance(money, str) else round(money * 1_000_000)
        if most_tokens is not None or most_money is not None:
            found.append(Budget(subject, period, most_tokens, most_money, whose))
    return found
