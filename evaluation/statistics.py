"""How sure a figure is."""

import math
import random
from collections.abc import Sequence
from statistics import fmean

_Z = 1.959964  # 95 %
_RESAMPLES = 4_000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), right for small n and for proportions near 0 or 1."""
    if n == 0:
        return (0.0, 1.0)
    p, z2 = successes / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[str]
) -> tuple[float, float, float]:
    """Mean of ours minus theirs on the same questions, and its 95 % interval; see `mean`."""
    return mean([float(a) - float(b) for a, b in zip(ours, theirs, strict=True)], clusters)


def mean(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float, float]:
    """The mean of at least one value, and its 95 % interval.

    A percentile bootstrap over whole clusters (questions from one template stand and fall together), drawn with a fixed
    seed so that the same reports give the same verdict.
    """
    groups: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    sums = [(sum(group), len(group)) for group in groups.values()]
    generator = random.Random(0)  # statistics, not secrets
    means = []
    for _ in range(_RESAMPLES):
        drawn = generator.choices(sums, k=len(sums))
        means.append(sum(total for total, _ in drawn) / sum(size for _, size in drawn))
    means.sort()
    return fmean(values), means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]
