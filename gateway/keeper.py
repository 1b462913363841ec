"""Sees to it that vLLM has what the gateway serves: it may start later, or be restarted and so forget every adapter."""

import asyncio
from contextlib import suppress

from gateway.hot_swap import HotSwap

_CALM_SECONDS = 5.0
_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 10.0
_APART_SECONDS = 0.2  # between two checks, however many requests ask for one


class Keeper:
    """Checks again and again. `problems` is what the last check could not mend, in words; None before the first."""

    def __init__(self, hot_swap: HotSwap) -> None:
        self.problems: list[str] | None = None
        self._hot_swap = hot_swap
        self._wake = asyncio.Event()

    def suspect(self) -> None:
        """A request found its adapter missing: check now."""
        self._wake.set()

    async def run(self) -> None:
        """Check until cancelled."""
        delay = _FIRST_SECONDS
        while True:
            self._wake.clear()
            self.problems = await self._hot_swap.restore()
            delay = min(2 * delay, _LONGEST_SECONDS) if self.problems else _FIRST_SECONDS
            await asyncio.sleep(_APART_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay if self.problems else _CALM_SECONDS)
