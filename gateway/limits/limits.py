"""May this key make this request now? Taken by estimate before, settled by what was used afterwards.

A caller awaits `admit` as the last thing before it starts a generation, sends the headers of the admission with the
answer, and calls `settle` once the request is over, however it ended. What rates or tells of others' traces awaits
`admit_told`.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from feedback.quota import Quota
from feedback.store import Key, Spent, StoreError, Usage
from gateway.limits.answers import Pairs, headers, overdrawn, too_fast
from gateway.limits.budgets import Account, Budget, Budgets, Overdrawn, budgets_of
from gateway.limits.config import LimitsConfig
from gateway.limits.rates import LocalRates, Rate, Taken
from gateway.limits.redis_counter import RedisCounter
from gateway.limits.shared import RateCounter, SharedRates

_PLANS = 10_000
_CHARACTERS_PER_TOKEN = 4
_NOTHING = Spent()

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Admission:
    """A request that may go ahead. `headers` go out with its answer, whole or streamed."""

    headers: Pairs = ()
    held: Spent = _NOTHING
    rates: Sequence[Rate] = ()
    shared: bool = False
    accounts: Sequence[Account] = ()
    settled: bool = field(default=False, init=False)


class _Plan(NamedTuple):
    """What one key has to pass; computed once, for as long as the key is remembered."""

    key: Key
    rates: tuple[Rate, ...]
    budgets: tuple[Budget, ...]


class Limits:
    """The limits of one gateway process. `run` must run beside it, and `close` come last."""

    def __init__(self, config: LimitsConfig, usage: Usage, leader: RateCounter | None = None) -> None:
        """`leader` counts rates where Redis does not; None: this process does, in `rates`, for others as well.

        Raises `ValueError` for a Redis URL that is none.
        """
        self.rates = LocalRates()
        self._config = config
        counter = leader
        if config.redis_url is not None:
            counter = RedisCounter(config.redis_url, seconds=config.redis_seconds)
        self._shared = None if counter is None else SharedRates(counter, self.rates)
        self._budgets = Budgets(usage)
        self._plans: dict[str, _Plan] = {}

    async def admit(self, key: Key, tokens: int, money: int = 0) -> Admission:
        """Take a request and so many tokens, and hold the budgets. `money` is in millionths (see `price`).

        Raises `ApiError` (429; then nothing was taken), and `StoreError` when a budget cannot be looked up.
        """
        plan = self._plan(key)
        if not (plan.rates or plan.budgets):
            return Admission()
        held = Spent(tokens, money)
        accounts = await self._budgets.hold(plan.budgets, tokens, money) if plan.budgets else ()
        if isinstance(accounts, Overdrawn):
            raise overdrawn(accounts)
        costs = [1 if rate.unit == "requests" else tokens for rate in plan.rates]
        try:
            taken = await self._take(plan.rates, costs)
        except asyncio.CancelledError:
            self._budgets.settle(accounts, held, _NOTHING)
            raise
        if taken.refused is not None:
            self._budgets.settle(accounts, held, _NOTHING)
            raise too_fast(plan.rates, costs, taken)
        return Admission(headers(plan.rates, taken.full_in), held, plan.rates, taken.shared, accounts)

    async def admit_told(self, key: Key) -> None:
        """Take a request in which something is told and nothing generated: no tokens, and of no budget.

        Raises `ApiError` (429; then nothing was taken).
        """
        rates = [rate for rate in self._plan(key).rates if rate.unit == "requests"]
        costs = [1] * len(rates)
        taken = await self._take(rates, costs)
        if taken.refused is not None:
            raise too_fast(rates, costs, taken)

    def settle(self, admission: Admission, tokens: int | None, money: int = 0) -> None:
        """The request is over and used so many tokens; None: nobody knows, the estimate stands. The first call counts.

        Never fails and never waits: what Redis and the store must hear of it, they hear soon.
        """
        if admission.settled:
            return
        admission.settled = True
        spent = admission.held if tokens is None else Spent(tokens, money)
        self._budgets.settle(admission.accounts, admission.held, spent)
        difference = spent.tokens - admission.held.tokens
        if difference:
            rates = self._shared if admission.shared and self._shared is not None else self.rates
            for rate in admission.rates:
                if rate.unit == "tokens":
                    rates.correct(rate, difference)

    def price(self, model: str, prompt_tokens: int, completion_tokens: int) -> int:
        """What that costs, in millionths of the currency; 0 for a model without a price."""
        price = self._config.prices.get(model)
        if price is None:
            return 0
        return round(prompt_tokens * price.prompt + completion_tokens * price.completion)

    async def run(self) -> None:
        """Save what was spent, and carry over to Redis what was settled, until cancelled."""
        async with asyncio.TaskGroup() as work:
            work.create_task(self._budgets.run())
            if self._shared is not None:
                work.create_task(self._shared.run())

    async def close(self) -> None:
        """Hand over what has not been yet; after the last `settle`."""
        try:
            await self._budgets.save()
        except StoreError as error:
            _log.error("what was spent of budgets in the last seconds is lost: %s", error)
        if self._shared is not None:
            await self._shared.close()

    async def _take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        if self._shared is None or not rates:
            return self.rates.take(rates, costs)
        return await self._shared.take(rates, costs)

    def _plan(self, key: Key) -> _Plan:
        plan = self._plans.get(key.id)
        if plan is not None and plan.key is key:
            return plan
        own, all_keys = key.quota.over(self._config.key), self._config.of_tenant(key.tenant)
        rates = (
            *_rates(f"{{{key.tenant}}}:key:{key.id}", own, "key"),
            *_rates(f"{{{key.tenant}}}", all_keys, "tenant"),
        )
        budgets = (
            *budgets_of(f"key:{key.id}", own, "key"),
            *budgets_of(f"tenant:{key.tenant}", all_keys, "tenant"),
        )
        if len(self._plans) >= _PLANS:
            self._plans.clear()
        plan = self._plans[key.id] = _Plan(key, rates, budgets)
        return plan


def estimated_tokens(characters: int) -> int:
    """How many tokens so much text will be, about: what is taken before anybody has counted."""
    return -(-characters // _CHARACTERS_PER_TOKEN)


def _rates(name: str, quota: Quota, whose: str) -> list[Rate]:
    found = []
    if isinstance(quota.requests_per_minute, int):
        found.append(Rate(f"{name}:requests", "requests", quota.requests_per_minute, whose))
    if isinstance(quota.tokens_per_minute, int):
        found.append(Rate(f"{name}:tokens", "tokens", quota.tokens_per_minute, whose))
    return found
