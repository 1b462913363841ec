"""Which of several vLLM servers answers a request, and which of them are left alone for a while.

The one with the fewest requests outstanding, and among those that are about equal the one that has seen the same
beginning before, because its prefix cache holds it (rendezvous hashing: when a server leaves, only its own prefixes
move). A server that fails is ejected, for longer each time, and returns when it is healthy again.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

import aiohttp

from agents.model import Delta, Model, ModelError, ModelRequest
from agents.vllm import VllmModel
from feedback.events import ModelCall
from gateway.errors import ApiError
from gateway.replica import Replica

PREFIX_BYTES = (
    512  # of a prompt: about as much as a system prompt's beginning; vLLM caches blocks of 128 tokens on CPU
)
_NEAR = 2  # requests outstanding by which two servers are still about equal
_PROBE_SECONDS = 2.0
_EJECT_AFTER = 3  # failures in a row
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 30.0  # of ejection


class _Health:
    """How one server has been doing."""

    def __init__(self) -> None:
        self.failures = 0
        self.ejections = 0
        self.ejected_until: float | None = None


class Pool:
    """The vLLM servers. `limit` is how many requests each is given at once; `replicas` is never empty."""

    def __init__(self, replicas: Sequence[Replica], *, limit: int) -> None:
        self.replicas = tuple(replicas)
        self._limit = limit
        self._health = {replica: _Health() for replica in self.replicas}

    def in_rotation(self, replica: Replica) -> bool:
        """Whether requests go there."""
        return self._health[replica].ejected_until is None

    def enter(self, policy: str | None, prefix: bytes, tried: Collection[Replica] = ()) -> Replica:
        """A server for one request, counted in; give it back by `leave`. `policy` None: the base model, which all have.

        Raises `ApiError`: 429 when all have as much as they take, 503 when none is left that has the policy.
        """
        able = [
            replica
            for replica in self.replicas
            if replica not in tried and (policy is None or policy in replica.verified)
        ]
        # With all of them ejected, trying is better than refusing: a dead server refuses quickly by itself.
        usable = [replica for replica in able if self.in_rotation(replica)] or able
        if not usable:
            message = f"No model server has {policy} ready. Retry shortly."
            raise ApiError(503, message, code="policy_not_loaded", retry_after=2)
        least = self._least(usable)
        near = [replica for replica in usable if replica.outstanding <= least + _NEAR]
        chosen = near[0] if len(near) == 1 else max(near, key=lambda replica: _weight(replica, prefix))
        chosen.outstanding += 1
        return chosen

    def check_room(self) -> None:
        """Raises `ApiError` (429) when all servers have as much as they take: for who cannot be told so later."""
        self._least(self.replicas)

    def _least(self, replicas: Iterable[Replica]) -> int:
        least = min(replica.outstanding for replica in replicas)
        if least >= self._limit:
            message = (
                f"Every model server has {self._limit} requests in progress. Retry after the given time."
            )
            raise ApiError(429, message, code="too_many_requests", retry_after=1)
        return least

    def leave(self, replica: Replica, *, failed: bool = False) -> None:
        """The request is over; `failed`: the server did not answer as a healthy one does."""
        replica.outstanding -= 1
        if failed:
            self._failed(replica)
        else:
            self._health[replica].failures = 0

    def _failed(self, replica: Replica) -> None:
        health = self._health[replica]
        health.failures += 1
        if health.failures >= _EJECT_AFTER and health.ejected_until is None:
            seconds = min(_FIRST_SECONDS * 2**health.ejections, _LONGEST_SECONDS)
            health.ejections += 1
            health.ejected_until = time.monotonic() + seconds

    async def run(self) -> None:
        """Probe every server until cancelled."""
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            await self.probe()

    async def probe(self) -> None:
        """Ask every server once; eject who does not answer again and again, take back who does."""
        answers = await asyncio.gather(*(replica.ready() for replica in self.replicas))
        for replica, healthy in zip(self.replicas, answers, strict=True):
            health = self._health[replica]
            if not healthy:
                self._failed(replica)
            elif health.ejected_until is None:
                health.ejections = max(0, health.ejections - 1)  # forgiven step by step
            elif health.ejected_until <= time.monotonic():
                health.failures, health.ejected_until = 0, None


class PooledModel(Model):
    """A policy on whichever server is best, asked elsewhere when that one fails before its first word."""

    def __init__(
        self,
        pool: Pool,
        session: aiohttp.ClientSession,
        *,
        name: str,
        policy: str,
        base: bool,
        headers: Callable[[], Mapping[str, str]],
    ) -> None:
        """`headers` is asked once for each call, however many servers are tried."""
        self.policy = policy
        self._pool = pool
        self._session = session
        self._name = name
        self._adapter = None if base else policy
        self._headers = headers

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        """See `agents.model.Model.stream`. Raises `ModelError`."""
        prefix = b"".join(message.text.encode()[:PREFIX_BYTES] for message in request.messages[:2])
        headers = self._headers()
        tried: list[Replica] = []
        error: ModelError | None = None
        while len(tried) < len(self._pool.replicas):
            replica = self._enter(prefix, tried, error)
            tried.append(replica)
            failed = begun = False
            parts = VllmModel(
                self._session, replica.url, name=self._name, policy=self.policy, headers=lambda: headers
            ).stream(request)
            try:
                async for part in parts:
                    begun = True
                    yield part
                return
            except ModelError as problem:
                missing = problem.code == "policy_not_loaded"
                if missing:  # restarted: the keeper will load and verify it again
                    replica.verified.discard(self.policy)
                failed = problem.status >= 500 and not missing
                if begun or problem.status < 500:
                    raise
                error = problem
            finally:
                if isinstance(parts, AsyncGenerator):
                    await parts.aclose()
                self._pool.leave(replica, failed=failed)
        assert error is not None, "there is at least one server"
        raise error

    def _enter(self, prefix: bytes, tried: Collection[Replica], error: ModelError | None) -> Replica:
        try:
            return self._pool.enter(self._adapter, prefix, tried)
        except ApiError as refusal:
            # What the last server said tells more than that there is no further one.
            raise error or ModelError(refusal.message, status=refusal.status, code=refusal.code) from refusal


def _weight(replica: Replica, prefix: bytes) -> bytes:
    return hashlib.blake2b(prefix + replica.url.encode(), digest_size=8).digest()
