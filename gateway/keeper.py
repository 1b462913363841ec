"""Sees to it that vLLM has what the gateway serves: it may start later, or be restarted and so forget every adapter."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

_CALM_SECONDS = 5.0
_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 10.0
_APART_SECONDS = 0.2  # between two checks, however many requests ask for one


class Keeper:
    """Checks again and again. `problems` is what the last check could not mend, in words; None before the first.

    `check` mends what it can, and returns the rest: `HotSwap.restore`, or where another worker does that, to ask it.
    """

    def __init__(self, check: Callable[[], Awaitable[list[str]]]) -> None:
        self.problems: list[str] | None = None
        self._check = check
        self._wake = asyncio.Event()

    def suspect(self) -> None:
        """A request found its adapter missing: check now."""
        self._wake.set()

    async def run(self) -> None:
        """Check until cancelled."""
        delay = _FIRST_SECONDS
        while True:
            self._wake.clear()
            self.problems = await self._check()
            delay = min(2 * delay, _LONGEST_SECONDS) if self.problems else _FIRST_SECONDS
            await asyncio.sleep(_APART_SECONDS)
            with suppress(
                TimeoutError
            ):  # not `wait_for`: before Python 3.12 it may forget that it is cancelled
                async with asyncio.timeout(delay if self.problems else _CALM_SECONDS):
                    await self._wake.wait()
