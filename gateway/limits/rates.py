"""Rates a minute, by the generic cell rate algorithm (GCRA, ITU-T I.371), which is a leaky bucket read as a meter.

Of each rate one number is kept: when its bucket will be full again. A bucket holds a minute's worth and refills evenly,
so there is no window with an edge at which twice the limit could pass at once; and `full_in` is what OpenAI's
`x-ratelimit-reset-*` headers say: the time until the limit is back in its initial state.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

PERIOD = 60.0
_ROUNDING = 1e-6  # seconds: so many additions of a fraction must not cost the last request of a minute
_PRUNE_AT = 10_000

Unit = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` units a minute; whoever has the same name shares them. `whose` is for the message to the client."""

    name: str
    unit: Unit
    limit: int
    whose: str

    @property
    def interval(self) -> float:
        """Seconds in which one unit comes back."""
        return PERIOD / self.limit

    def remaining(self, full_in: float) -> int:
        """Whole units in the bucket that will be full in so many seconds."""
        return max(0, int((PERIOD - full_in + _ROUNDING) / PERIOD * self.limit))


class Taken(NamedTuple):
    """What came of it. `refused` is the index of the rate to wait longest for; then nothing was taken from any.

    `full_in` is how many seconds each rate needs to be full again, and `wait` how many until it can be taken.
    `shared` says that it was taken from what all processes share, and is to be corrected there.
    """

    full_in: Sequence[float]
    refused: int | None = None
    wait: float = 0.0
    shared: bool = False


class LocalRates:
    """The rates of one process. Nothing here waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._prune_at = _PRUNE_AT

    def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        """Take from all rates, or from none."""
        now = self._clock()
        before = [max(self._full_at.get(rate.name, now), now) for rate in rates]
        after = [at + cost * PERIOD / rate.limit for at, rate, cost in zip(before, rates, costs, strict=True)]
        latest = max(after, default=now)
        if (wait := latest - now - PERIOD) > _ROUNDING:
            return Taken([at - now for at in before], after.index(latest), wait)
        for rate, at in zip(rates, after, strict=True):
            self._full_at[rate.name] = at
        if len(self._full_at) > self._prune_at:
            self._prune(now)
        return Taken([at - now for at in after])

    def correct(self, rate: Rate, amount: int) -> None:
        """Take so much more, whether it is there or not; what is negative is given back."""
        now = self._clock()
        at = self._full_at.get(rate.name, now)
        self._full_at[rate.name] = (max(at, now) if amount > 0 else at) + amount * rate.interval

    def _prune(self, now: float) -> None:
        """A bucket that is full is as one that never was."""
        self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        self._prune_at = max(_PRUNE_AT, 2 * len(self._full_at))
