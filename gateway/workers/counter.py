"""Rates of all workers, counted by the leader where there is no Redis: as exact as in one process."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.limits.rates import LocalRates, Rate, Taken
from gateway.limits.shared import CounterError
from gateway.workers.peers import LEADER, PeerError, Peers

_SECONDS = 0.25  # for an answer; a request waits for it


class LeaderCounter:
    """A `RateCounter`, for workers that do not lead."""

    name = "The worker that leads"

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def take(self, rates: Sequence[Rate], costs: Sequence[int]) -> Taken:
        """See `RateCounter`."""
        full_in, refused, wait = await self._ask({"take": list(zip(rates, costs, strict=True))})
        return Taken(full_in, refused, wait, shared=True)

    async def correct(self, changes: Sequence[tuple[Rate, int]]) -> None:
        """See `RateCounter`."""
        await self._ask({"correct": changes})

    async def close(self) -> None:
        """Nothing is open here."""

    async def _ask(self, body: Mapping[str, object]) -> Any:
        try:
            return await self._peers.ask(LEADER, "POST", "/rates", body, seconds=_SECONDS)
        except PeerError as error:
            raise CounterError(str(error)) from error


def counted(rates: LocalRates, body: Mapping[str, Any]) -> list[Any]:
    """By the leader: what another worker's `LeaderCounter` has asked for."""
    for rate, amount in body.get("correct", ()):
        rates.correct(Rate(**rate), amount)
    if "take" not in body:
        return []
    asked = [(Rate(**rate), cost) for rate, cost in body["take"]]
    taken = rates.take([rate for rate, _ in asked], [cost for _, cost in asked])
    return [taken.full_in, taken.refused, taken.wait]
