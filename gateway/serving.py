"""Who answers now: the alias of each agent, the policies that can be asked for by name, and the requests in progress.

Plain bookkeeping without I/O: nothing here awaits but `drained`, so that a request resolves its alias and is counted in
one step, and a flip is one assignment.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gateway.errors import ApiError


@dataclass(frozen=True)
class Alias:
    """What an agent's name stands for, and what a roll-back goes back to."""

    active: str
    previous: str | None


@dataclass(frozen=True)
class Target:
    """A policy that can answer now; `served_name` is what vLLM calls it."""

    agent: str
    policy: str
    served_name: str


class Serving:
    """The live state of all agents. `bases` is the base policy of each; `base_model` is its name in vLLM."""

    def __init__(self, bases: Mapping[str, str], base_model: str) -> None:
        self._bases = bases
        self._base_model = base_model
        self._aliases = {agent: Alias(base, None) for agent, base in bases.items()}
        # Adapters that vLLM has and that score as they should → their agent, and when they became known (Unix time).
        self._verified: dict[str, tuple[str, int]] = {}
        self._counts: Counter[str] = Counter()
        self._idle: dict[str, asyncio.Event] = {}

    def alias(self, agent: str) -> Alias:
        """What the agent's name stands for now."""
        return self._aliases[agent]

    def aliases(self) -> dict[str, Alias]:
        """What every agent's name stands for now."""
        return dict(self._aliases)

    def verified(self) -> dict[str, tuple[str, int]]:
        """The adapters that are ready, each with its agent and the Unix time at which it became known."""
        return dict(self._verified)

    def replace(self, aliases: Mapping[str, Alias], verified: Mapping[str, tuple[str, int]]) -> None:
        """From now on all is as in another worker, which said `aliases` and `verified`."""
        self._aliases = dict(aliases)
        self._verified = dict(verified)

    def flip(self, agent: str, active: str, previous: str | None) -> None:
        """From now on, new requests to the agent are answered by `active`."""
        self._aliases[agent] = Alias(active, previous)

    def is_base(self, policy: str) -> bool:
        """Whether the policy is the base model, which needs no adapter."""
        return policy in self._bases.values()

    def is_ready(self, policy: str) -> bool:
        """Whether the policy can answer now."""
        return policy in self._verified or self.is_base(policy)

    def mark_ready(self, agent: str, policy: str, *, known: int) -> None:
        """vLLM has the adapter, and it scores as it should. The policy became known at the Unix time `known`."""
        if not self.is_base(policy):
            self._verified[policy] = agent, known

    def mark_gone(self, policy: str) -> None:
        """No new request may be answered by this policy."""
        self._verified.pop(policy, None)

    def ready(self, agent: str) -> list[str]:
        """The agent's policies that can be asked for by name, its base first."""
        verified = (policy for policy, (owner, _) in self._verified.items() if owner == agent)
        return [self._bases[agent], *verified]

    def known_since(self, policy: str) -> int | None:
        """The Unix time at which a policy that is ready became known; None of the base, which always was."""
        return self._verified[policy][1] if policy in self._verified else None

    def models(self) -> list[str]:
        """Every name that a request may have as its model."""
        return [name for agent in self._bases for name in (agent, *self.ready(agent))]

    def resolve(self, model: str, others: Iterable[str] = ()) -> Target:
        """The policy behind an alias or a pinned name. Raises `ApiError` (404 unknown, 503 being loaded).

        `others` are names that would have been answered elsewhere: who asks for an unknown one is told of them too.
        """
        agent = model.partition("@")[0]
        policy = self._aliases[agent].active if model in self._aliases else model
        if agent not in self._aliases or (policy == model and not self.is_ready(policy)):
            names = ", ".join([*self.models(), *others])
            message = f"The model {model!r} does not exist. Use one of: {names}."
            raise ApiError(404, message, code="model_not_found", param="model")
        if not self.is_ready(policy):
            message = f"{policy} is being loaded. Retry shortly."
            raise ApiError(503, message, code="policy_not_loaded", retry_after=2)
        return Target(agent, policy, self._base_model if self.is_base(policy) else policy)

    def enter(self, policy: str) -> Callable[[], None]:
        """Count a request in; call what is returned once, when the request is over."""
        self._counts[policy] += 1

        def leave() -> None:
            self._counts[policy] -= 1
            if not self._counts[policy]:
                del self._counts[policy]
                if policy in self._idle:
                    self._idle.pop(policy).set()

        return leave

    def in_flight(self) -> dict[str, int]:
        """Requests in progress, by policy."""
        return dict(self._counts)

    async def drained(self, policy: str) -> None:
        """Return when no request is being answered by this policy."""
        while self._counts[policy]:
            await self._idle.setdefault(policy, asyncio.Event()).wait()
