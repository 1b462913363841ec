"""What the leader has decided and every worker serves by: which policies answer, and where they are ready.

The leader tells all of it, each time that something of it changes; what is older than what a worker knows already is
passed over, so that no order of arrival matters. A worker that starts asks first, and answers nobody before it knows.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.pool import Pool
from gateway.serving import Alias, Serving
from gateway.workers.peers import LEADER, PeerError, Peers

_TELL_SECONDS = 5.0
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Picture:
    """The state at one moment. `version` is the machine's monotonic clock, so that a new leader's is newer, too.

    `verified` names the policies that are ready, with their agent and the Unix time at which they became known;
    `replicas` says which of them each model server has, by its URL.
    """

    version: int
    aliases: Mapping[str, Alias]
    verified: Mapping[str, tuple[str, int]]
    replicas: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Picture":
        """From what was sent as JSON."""
        aliases = {agent: Alias(**alias) for agent, alias in data["aliases"].items()}
        verified = {policy: (agent, known) for policy, (agent, known) in data["verified"].items()}
        return cls(data["version"], aliases, verified, data["replicas"])


class Board:
    """The picture of this worker, which is `serving` and `pool`. `known` is set once it may be served by."""

    def __init__(self, peers: Peers, serving: Serving, pool: Pool) -> None:
        self.known = asyncio.Event()
        self._peers = peers
        self._serving = serving
        self._pool = pool
        self._version = 0

    def picture(self) -> Picture:
        """What this worker serves by now."""
        replicas = {replica.url: sorted(replica.verified) for replica in self._pool.replicas}
        return Picture(time.monotonic_ns(), self._serving.aliases(), self._serving.verified(), replicas)

    async def publish(self) -> None:
        """By the leader: return when every worker serves by what there is now. Who does not answer is logged.

        That one goes on as it did, until it asks; what it may still be using is not unloaded (see `drained`).
        """
        self.known.set()
        if self._peers.place.others:
            await self._peers.tell_all("/picture", {"picture": self.picture()}, seconds=_TELL_SECONDS)

    async def drained(self, policy: str) -> None:
        """By the leader: return when no worker has a request running on this policy, which is on the board no more."""
        await asyncio.gather(
            self._serving.drained(policy), *(self._drained_at(n, policy) for n in self._peers.place.others)
        )

    async def _drained_at(self, number: int, policy: str) -> None:
        body = {"picture": self.picture(), "drained": policy}
        while True:
            try:
                await self._peers.ask(number, "POST", "/picture", body, seconds=None)
            except PeerError as error:
                # It hangs, or has just died: only who is surely gone uses nothing any more.
                if not error.gone:
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
            return

    async def taken(self, picture: Picture, drained: str | None) -> None:
        """Serve by what the leader says, and return when no request runs on the policy `drained`, if one is named."""
        self._take(picture)
        if drained is not None:
            await self._serving.drained(drained)

    async def fetch(self) -> list[str]:
        """By a worker that does not lead: have the leader check, and serve by what it says. Returns what is wrong."""
        try:
            answer = await self._peers.ask(LEADER, "GET", "/picture", seconds=None)
        except PeerError as error:
            return [str(error)]
        self._take(Picture.read(answer["picture"]))
        self.known.set()
        return list(answer["problems"])

    def _take(self, picture: Picture) -> None:
        if picture.version <= self._version:
            return
        self._version = picture.version
        self._serving.replace(picture.aliases, picture.verified)
        for replica in self._pool.replicas:
            replica.verified = set(picture.replicas.get(replica.url, ()))
