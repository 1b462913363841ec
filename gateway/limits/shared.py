"""The same rates in Redis, so that all workers and replicas share them; in one round trip for all rates of a request.

Redis's own clock counts, so the clocks of the replicas need not agree. While Redis does not answer, every process goes
on with rates of its own: neither is everyone refused, nor is anything without a limit.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.limits.rates import LocalRates, Rate, Taken

_PREFIX = "flywheel:rate:"
_CONNECTIONS = 32
_PAUSE = 1.0  # seconds in which nobody tries a Redis that has just failed
_BATCH_SECONDS = 0.02  # corrections that come within this time go together

_log = logging.getLogger(__name__)

# KEYS: the rates. ARGV: for each its interval in µs per unit, and how much to take. All or nothing, as in LocalRates.
# Answers [refused (0: none), wait in µs, then for each rate the µs until it is full].
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local before, after, refused, latest = {}, {}, 0, 0
for i, key in ipairs(KEYS) do
  before[i] = math.max(tonumber(redis.call('GET', key) or now), now)
  after[i] = before[i] + ARGV[2 * i - 1] * ARGV[2 * i]
  local wait = after[i] - now - 60000000
  if wait > 1 and wait > latest then refused, latest = i, wait end
end
local answer = {refused, math.ceil(latest)}
for i, key in ipairs(KEYS) do
  local at = after[i]
  if refused > 0 then
    at = before[i]
  elseif at > now then
    redis.call('SET', key, string.format('%.3f', at), 'PX', math.ceil((at - now) / 1000))
  end
  answer[i + 2] = math.ceil(at - now)
end
return answer
"""
_CORRECT = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
for i, key in ipairs(KEYS) do
  local at, amount = tonumber(redis.call('GET', key) or now), tonumber(ARGV[2 * i])
  if amount > 0 then at = math.max(at, now) end
  at = at + ARGV[2 * i - 1] * amount
  if at > now then
    redis.call('SET', key, string.format('%.3f', at), 'PX', math.ceil((at - now) / 1000))
  else
    redis.call('DEL', key)
  end
end
"""


class SharedRates:
    """Rates that all processes with the same Redis share. `run` must run beside it: it carries corrections over."""

    def __init__(self, url: str, local: LocalRates, *, seconds: float) -> None:
        """Connects when it is first used. Raises `ValueError` for a URL that is none."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # who waits is a client; `_PAUSE` decides when to try again
        )
        self._redis = Redis.from_pool(pool)  # closes it, too
        self._take = self._redis.register_script(_TAKE)
        self._correct = self._redis.register_script(_CORRECT)
        self._local = local
        self._seconds = seconds
        self._silent_until = 0.0
        self._down = False
        self._corrections: Counter[Rate] = Counter()
        self._waiting = asyncio.Event()

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        """Take from all rates, or from none; from those of this process while Redis does not answer."""
        if time.monotonic() < self._silent_until:
            return self._local.take(rates, costs)
        try:
            answer = await self._call(
                self._take, [(rate, cost) for rate, cost in zip(rates, costs, strict=True)]
            )
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return self._local.take(rates, costs)
        self._answered()
        refused, wait, *full_in = answer
        return Taken(
            [microseconds / 1e6 for microseconds in full_in],
            refused - 1 if refused else None,
            wait / 1e6,
            shared=True,
        )

    def correct(self, rate: Rate, amount: int) -> None:
        """Take so much more, whether it is there or not; what is negative is given back. Soon, and not waited for."""
        self._corrections[rate] += amount
        self._waiting.set()

    async def run(self) -> None:
        """Carry corrections over, until cancelled. What Redis has not taken is tried again."""
        while True:
            await self._waiting.wait()
            await asyncio.sleep(max(_BATCH_SECONDS, self._silent_until - time.monotonic()))
            await self.flush()

    async def flush(self) -> None:
        """Carry over what waits, if Redis answers."""
        taken, self._corrections = self._corrections, Counter()
        self._waiting.clear()
        by_tenant: dict[str, list[tuple[Rate, int]]] = {}
        for rate, amount in taken.items():
            if amount:
                by_tenant.setdefault(_slot(rate), []).append((rate, amount))
        for changes in by_tenant.values():
            try:
                await self._call(self._correct, changes)
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
                self._corrections.update(dict(changes))
                self._waiting.set()

    async def close(self) -> None:
        """Carry over what waits, then close every connection."""
        await self.flush()
        await self._redis.aclose()

    async def _call(self, script: Any, changes: Sequence[tuple[Rate, int]]) -> Any:
        keys = [_PREFIX + rate.name for rate, _ in changes]
        arguments = [x for rate, amount in changes for x in (rate.interval * 1e6, amount)]
        async with asyncio.timeout(self._seconds):
            return await script(keys=keys, args=arguments)

    def _failed(self, error: Exception) -> None:
        self._silent_until = time.monotonic() + _PAUSE
        if not self._down:
            reason = str(error) or f"no answer within {self._seconds:g} s"
            _log.error("Redis does not answer, every process counts its own rates until it does: %s", reason)
        self._down = True

    def _answered(self) -> None:
        if self._down:
            _log.warning("Redis answers again: rates are shared")
        self._down = False


def _slot(rate: Rate) -> str:
    """What Redis Cluster hashes of a name: all rates that are asked for together must have it in common."""
    return rate.name.partition("}")[0]
