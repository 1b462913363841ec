"""Put another policy behind an agent's name, and take it back, without a request noticing.

Load under a new name on every server → re-score the probes on each (a served model that is not the evaluated one is
refused) → record → flip. The one before stays loaded, so that a roll-back is only a flip; anything older is unloaded
when its requests are over, in every worker. A server that was out of rotation gets no request for a policy before it is
verified there.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.outbox import OutboxError
from gateway.checkpoint import Checkpoint, CheckpointError
from gateway.errors import ApiError
from gateway.pool import Pool
from gateway.registry import Registry
from gateway.replica import Replica, ReplicaError
from gateway.serving import Serving
from gateway.workers.board import Board

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """How an adapter came to be ready: the slowest and the least exact of the servers.

    Times in seconds; |Δ| in nats per token, between probes and server.
    """

    load_seconds: float = 0.0
    probe_seconds: float = 0.0
    probe_mean_delta: float = 0.0
    probe_max_delta: float = 0.0


@dataclass(frozen=True)
class Swap:
    """What a promotion or a roll-back did."""

    policy: str
    previous: str
    load_seconds: float
    probe_seconds: float
    flip_seconds: float
    probe_mean_delta: float
    probe_max_delta: float


class ProbeMismatchError(Exception):
    """The replica scores the probes otherwise than the trainer did: it does not serve what was evaluated."""

    def __init__(self, policy: str, tolerance: float, loaded: Loaded) -> None:
        super().__init__(
            f"{policy} as loaded is not the model that was evaluated: mean |Δ logprob| of its probes is "
            f"{loaded.probe_mean_delta:.4f} (max {loaded.probe_max_delta:.4f}), the tolerance is {tolerance:g}"
        )
        self.loaded = loaded


class HotSwap:
    """Moves policies. One move at a time per agent; one loading at a time, since all share the servers."""

    def __init__(
        self, registry: Registry, serving: Serving, pool: Pool, board: Board, *, tolerance: float
    ) -> None:
        self._registry = registry
        self._serving = serving
        self._pool = pool
        self._board = board
        self._tolerance = tolerance
        self._moving: set[str] = set()
        self._control = asyncio.Lock()
        self._draining: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def promote(self, policy: str, *, by: str, reason: str) -> Swap:
        """Make `policy` the active one. When it raises (`ApiError` 404 or 409, `PolicyTransitionError`, `ReplicaError`,
        `OutboxError`), the alias stands where it stood.
        """
        status = self._registry.status(policy)
        with self._one_move(status.agent):
            self._registry.check(policy, "active")
            async with self._control:
                loaded = await self._admit(policy, by)
                started = time.perf_counter()
                before = self._serving.alias(status.agent).active
                evidence: dict[str, Any] = {"probe_mean_delta": loaded.probe_mean_delta, "previous": before}
                try:
                    await self._registry.change(policy, "active", by=by, reason=reason, evidence=evidence)
                except (
                    BaseException
                ):  # not recorded, or cancelled: it must not stay loaded as if it were wanted
                    self._unload_others(status.agent)
                    raise
                self._serving.flip(status.agent, policy, before)
            self._unload_others(status.agent)
            await self._board.publish()
            flip_seconds = time.perf_counter() - started
        return Swap(policy, before, flip_seconds=flip_seconds, **vars(loaded))

    async def rollback(self, agent: str, *, by: str, reason: str) -> Swap:
        """Go back to the policy that was active before. Raises as `promote` does.

        Recorded in this order, so that a crash in between leaves one active policy: the old one is active again, then
        the bad one is rolled back.
        """
        with self._one_move(agent):
            before = self._serving.alias(agent).active
            target = self._registry.previous(agent)
            if target is None:
                message = (
                    f"{agent} has no previous policy to go back to: {before} is its first. Promote another."
                )
                raise ApiError(409, message, code="no_previous_policy")
            loaded = Loaded()
            if not self._serving.is_ready(target.policy):
                async with self._control:
                    loaded = await self._admit(target.policy, by)
            started = time.perf_counter()
            await self._registry.change(target.policy, "active", by=by, reason=reason)
            self._serving.flip(agent, target.policy, None)
            await self._board.publish()
            flip_seconds = time.perf_counter() - started
            try:
                await self._registry.change(before, "rolled_back", by=by, reason=reason)
            except OutboxError as error:  # the roll-back itself is recorded and done: it must not look undone
                _log.error(
                    "%s is no longer active, but stays 'retired', not 'rolled_back': %s", before, error
                )
            previous = self._registry.previous(agent)
            self._serving.flip(agent, target.policy, previous.policy if previous else None)
            self._unload_others(agent)
            await self._board.publish()
        return Swap(target.policy, before, flip_seconds=flip_seconds, **vars(loaded))

    async def restore(self) -> list[str]:
        """Make active and previous policies ready wherever vLLM has lost, or never had, them.

        Returns what stays wrong, in words.
        """
        problems: list[str] = []
        present: dict[Replica, Mapping[str, str]] = {}
        async with self._control:
            for replica in self._pool.replicas:
                try:
                    present[replica] = await replica.loaded()
                    problems += await self._restore_on(replica, present[replica])
                except ReplicaError as error:
                    problems.append(str(error))
        await self._board.publish()
        self._clear_away(present)
        return problems

    async def _restore_on(self, replica: Replica, present: Collection[str]) -> list[str]:
        problems = []
        for agent in self._registry.agents:
            alias = self._serving.alias(agent)
            for policy in filter(None, (alias.active, alias.previous)):
                if self._serving.is_base(policy):
                    continue
                if policy not in present:
                    self._lost(replica, policy)
                if policy in replica.verified:
                    continue
                try:
                    await self._load_on((replica,), policy)
                except (CheckpointError, ProbeMismatchError) as error:
                    problems.append(str(error))
                else:
                    self._mark_ready(policy)
        return problems

    def _lost(self, replica: Replica, policy: str) -> None:
        replica.verified.discard(policy)
        if not any(policy in other.verified for other in self._pool.replicas):
            self._serving.mark_gone(policy)

    def _clear_away(self, present: Mapping[Replica, Collection[str]]) -> None:
        """Unload what an earlier gateway process left, when no worker uses it. Returns at once.

        A candidate is not ours: the evaluation may be using it.
        """
        for policy in set().union(*present.values()) - self._draining:
            status = self._registry.find(policy)
            if status is None or status.state not in ("retired", "rolled_back", "rejected"):
                continue
            if policy != self._serving.alias(status.agent).previous:
                self._unload_when_drained(policy, [r for r, loaded in present.items() if policy in loaded])

    async def close(self) -> None:
        """Give up unloading what is still draining: a gateway that starts again clears it away."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def _one_move(self, agent: str) -> Iterator[None]:
        if agent in self._moving:
            message = f"Another promotion or roll-back of {agent} is in progress. Wait for it, then see /v1/policies."
            raise ApiError(409, message, code="swap_in_progress")
        self._moving.add(agent)
        try:
            yield
        finally:
            self._moving.remove(agent)

    async def _admit(self, policy: str, by: str) -> Loaded:
        """`_ensure_ready`, in the words of the API; a policy whose probes do not match is rejected for good."""
        try:
            return await self._ensure_ready(policy)
        except CheckpointError as error:
            raise ApiError(409, str(error), code="invalid_checkpoint") from error
        except ProbeMismatchError as error:
            if self._registry.status(policy).state in ("evaluated", "canary"):
                await self._registry.change(
                    policy, "rejected", by=by, reason=str(error), evidence=vars(error.loaded)
                )
            raise ApiError(
                409, f"{error}. Find out which weights were evaluated.", code="probe_mismatch"
            ) from error

    async def _ensure_ready(self, policy: str) -> Loaded:
        """Load and verify on all servers in rotation.

        Raises `CheckpointError`, `ProbeMismatchError`, `ReplicaError`.
        """
        if self._serving.is_base(policy):
            return Loaded()
        rotating = tuple(filter(self._pool.in_rotation, self._pool.replicas)) or self._pool.replicas
        try:
            loaded = await self._load_on(rotating, policy)
        except (CheckpointError, ProbeMismatchError, ReplicaError):
            if not self._serving.is_ready(policy):  # where it did load, it must not stay as if it were wanted
                await self._unload_from(self._having(policy), policy)
            raise
        self._mark_ready(policy)
        return loaded

    def _mark_ready(self, policy: str) -> None:
        status = self._registry.status(policy)
        known = int(status.history[0].time.timestamp())
        self._serving.mark_ready(status.agent, policy, known=known)

    async def _load_on(self, replicas: Sequence[Replica], policy: str) -> Loaded:
        """Load and verify on these servers at once. Raises as `_ensure_ready` does, when all have been tried."""
        status = self._registry.status(policy)
        if status.path is None:
            raise CheckpointError(
                f"{policy} has no checkpoint: it is the base of another model than is served now"
            )
        checkpoint = await asyncio.to_thread(Checkpoint.read, Path(status.path), policy)
        results = await asyncio.gather(
            *(self._load(replica, checkpoint, status.path) for replica in replicas), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        done = [result for result in results if isinstance(result, Loaded)]
        return Loaded(*(max(values) for values in zip(*(vars(one).values() for one in done), strict=True)))

    async def _load(self, replica: Replica, checkpoint: Checkpoint, path: str) -> Loaded:
        policy = checkpoint.policy
        started = time.perf_counter()
        present = (await replica.loaded()).get(policy)
        if present not in (None, path):
            raise CheckpointError(f"vLLM has loaded {policy} from {present}, not from {path}")
        if present is None:
            await replica.load(policy, path)
        load_seconds = time.perf_counter() - started
        try:
            loaded = await self._score(replica, checkpoint, load_seconds)
        except ReplicaError:
            with suppress(ReplicaError):  # the first error is the one to tell
                await replica.unload(policy)
            raise
        if not loaded.probe_mean_delta <= self._tolerance:  # also refuses NaN
            await replica.unload(policy)
            raise ProbeMismatchError(policy, self._tolerance, loaded)
        replica.verified.add(policy)
        return loaded

    async def _score(self, replica: Replica, checkpoint: Checkpoint, load_seconds: float) -> Loaded:
        started = time.perf_counter()
        scores = await asyncio.gather(
            *(
                replica.score(checkpoint.policy, probe.prompt_token_ids, probe.completion_token_ids)
                for probe in checkpoint.probes
            )
        )
        deltas = [
            abs(ours - theirs)
            for probe, score in zip(checkpoint.probes, scores, strict=True)
            for ours, theirs in zip(probe.logprobs, score, strict=True)
        ]
        return Loaded(load_seconds, time.perf_counter() - started, sum(deltas) / len(deltas), max(deltas))

    def _unload_others(self, agent: str) -> None:
        """Unload what is neither active nor previous, each when its requests are over. Returns at once."""
        alias = self._serving.alias(agent)
        for policy in self._serving.ready(agent):
            if policy not in (alias.active, alias.previous) and not self._serving.is_base(policy):
                self._serving.mark_gone(policy)
                self._unload_when_drained(policy, self._having(policy))

    def _unload_when_drained(self, policy: str, replicas: Sequence[Replica]) -> None:
        self._draining.add(policy)
        task = asyncio.create_task(self._unload_drained(policy, replicas))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unload_drained(self, policy: str, replicas: Sequence[Replica]) -> None:
        await self._board.drained(policy)
        async with self._control:
            if policy not in self._draining:  # it has been waited for twice, and is gone
                return
            self._draining.discard(policy)
            if not self._serving.is_ready(policy):  # else promoted again meanwhile
                await self._unload_from(replicas, policy)

    def _having(self, policy: str) -> list[Replica]:
        return [replica for replica in self._pool.replicas if policy in replica.verified]

    async def _unload_from(self, replicas: Sequence[Replica], policy: str) -> None:
        for replica in replicas:
            replica.verified.discard(policy)
            try:
                await replica.unload(policy)
            except ReplicaError as error:
                _log.warning("%s stays loaded in vLLM until the next check: %s", policy, error)
