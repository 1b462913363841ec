"""Rates in Redis, so that all workers and replicas share them; in one round trip for all rates of a request.

Redis's own clock counts, so the clocks of the replicas need not agree.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.limits.rates import Rate, Taken
from gateway.limits.shared import CounterError

_PREFIX = "flywheel:rate:"
_CONNECTIONS = 32

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


class RedisCounter:
    """A `RateCounter`. `seconds` is how long it may take to answer."""

    name = "Redis"

    def __init__(self, url: str, *, seconds: float) -> None:
        """Connects when it is first used. Raises `ValueError` for a URL that is none."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # who waits is a client; `SharedRates` decides when to try again
        )
        self._redis = Redis.from_pool(pool)  # closes it, too
        self._take = self._redis.register_script(_TAKE)
        self._correct = self._redis.register_script(_CORRECT)
        self._seconds = seconds

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        """See `RateCounter`."""
        refused, wait, *full_in = await self._call(self._take, rates, costs)
        seconds = [microseconds / 1e6 for microseconds in full_in]
        return Taken(seconds, refused - 1 if refused else None, wait / 1e6, shared=True)

    async def correct(self, changes: Sequence[tuple[Rate, int]]) -> None:
        """See `RateCounter`."""
        await self._call(self._correct, [rate for rate, _ in changes], [amount for _, amount in changes])

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def _call(self, script: Any, rates: Sequence[Rate], amounts: Sequence[int]) -> Any:
        keys = [_PREFIX + rate.name for rate in rates]
        arguments = [
            x for rate, amount in zip(rates, amounts, strict=True) for x in (rate.interval * 1e6, amount)
        ]
        try:
            async with asyncio.timeout(self._seconds):
                return await script(keys=keys, args=arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise CounterError(str(error) or f"no answer within {self._seconds:g} s") from error
