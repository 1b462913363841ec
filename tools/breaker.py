"""Circuit breaking: who fails again and again is left alone for a while (Nygard, Release It!, chapter 5)."""

import time
from collections.abc import Callable


class Breaker:
    """Closed until `failures` in a row; then open for `rest` seconds; then half open: one call tries, others wait on.

    Report each call that was let through, by `succeeded` or `failed`, or by `withdrawn` where it says nothing.
    """

    def __init__(self, *, failures: int, rest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._rest = rest
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._trying = False

    def enter(self) -> float | None:
        """None: the call may go ahead. Else it may not; seconds until it is worth while to ask again."""
        if self._open_until is None:
            return None
        left = self._open_until - self._clock()
        if left > 0 or self._trying:
            return max(left, 0.0)
        self._trying = True
        return None

    def succeeded(self) -> None:
        """It did what it is for; that a call was wrong in itself is no failure."""
        self._failures, self._open_until, self._trying = 0, None, False

    def failed(self) -> None:
        """It did not."""
        self._failures += 1
        self._trying = False
        if self._failures >= self._limit:
            self._open_until = self._clock() + self._rest

    def withdrawn(self) -> None:
        """The call was cancelled before it could be told."""
        self._trying = False
