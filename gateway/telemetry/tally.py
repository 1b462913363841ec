"""Counting on the hot path: plain numbers, which prometheus_client hears of when somebody wants to know.

Its own counters take a lock for each number, and write to a file where several processes count together: for the eight
numbers of a small request that is more than a twentieth of all that it costs.
"""

import operator
from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram


class Buckets(Histogram):
    """A histogram that takes many observations at once, for which prometheus_client has no public way."""

    @property
    def bounds(self) -> list[float]:
        """The upper bounds of a series' buckets; the last is infinite."""
        return self._upper_bounds

    def add(self, counts: Iterable[int], total: float) -> None:
        """So many more in each bucket, and so much in all."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class Tally:
    """Observations of one histogram's series. `observe` in one thread; `tell` in any, in one at a time."""

    __slots__ = ("_bounds", "_counts", "_series", "_sum", "_told", "_told_sum")

    def __init__(self, series: Buckets) -> None:
        self._series = series
        self._bounds = series.bounds
        self._counts = [0] * len(self._bounds)
        self._told = self._counts.copy()
        self._sum = self._told_sum = 0.0

    def observe(self, amount: float) -> None:
        """Count it in its bucket."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def tell(self) -> None:
        """Add to the histogram what has come since the last time."""
        counts, total = self._counts.copy(), self._sum
        self._series.add(map(operator.sub, counts, self._told), total - self._told_sum)
        self._told, self._told_sum = counts, total


class Count:
    """A counter's series, likewise; a gauge's where it goes down as well."""

    __slots__ = ("_series", "_told", "value")

    def __init__(self, series: Counter | Gauge) -> None:
        self.value = 0
        self._series = series
        self._told = 0

    def tell(self) -> None:
        """Add what has come since the last time."""
        new = self.value
        if new != self._told:
            self._series.inc(new - self._told)
            self._told = new
