"""Where every policy is in its life: an in-memory projection of `PolicyChanged`, seeded from the store.

The gateway must not wait for its own events to come back through the bus: a change is on the disk of the outbox, then
in this projection, then answered.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from feedback import policies
from feedback.delivery import Delivery
from feedback.events import PolicyChanged, PolicyState
from feedback.policies import PolicyStatus
from gateway.errors import ApiError


class Registry:
    """The policies of all agents. `bases` is the base policy of each."""

    def __init__(
        self, delivery: Delivery, bases: Mapping[str, str], history: Mapping[str, Sequence[PolicyChanged]]
    ) -> None:
        self._delivery = delivery
        self._bases = bases
        self._events = {agent: list(history.get(agent, ())) for agent in bases}
        self._statuses = {agent: policies.project(events) for agent, events in self._events.items()}
        self._changing = asyncio.Lock()  # between the check of a transition and its effect

    async def ensure_active(self) -> None:
        """Make the base policy active where an agent has none, or that of another model. Raises `OutboxError`."""
        for agent, base in self._bases.items():
            status = policies.active(self._statuses[agent])
            if status is None or (status.path is None and status.policy != base):
                await self.change(
                    base, "active", by="gateway", reason="base model of this gateway's configuration"
                )

    @property
    def agents(self) -> tuple[str, ...]:
        """The names of the agents that this gateway serves."""
        return tuple(self._bases)

    def find(self, policy: str) -> PolicyStatus | None:
        """One policy, if it is registered."""
        return self._statuses.get(agent_of(policy), {}).get(policy)

    def statuses(self, agent: str) -> dict[str, PolicyStatus]:
        """The agent's policies by name."""
        return self._statuses[agent]

    def status(self, policy: str) -> PolicyStatus:
        """One policy. Raises `ApiError` (404)."""
        status = self.find(policy)
        if status is None:
            names = ", ".join(self._statuses.get(agent_of(policy), ())) or "none"
            message = (
                f"No policy {policy!r} is registered (registered: {names}). POST /v1/policies registers one."
            )
            raise ApiError(404, message, code="policy_not_found", param="policy")
        return status

    def agent(self, name: str) -> str:
        """The name itself if this gateway serves such an agent. Raises `ApiError` (404)."""
        if name not in self._bases:
            message = f"There is no agent {name!r}. Agents: {', '.join(self._bases)}."
            raise ApiError(404, message, code="agent_not_found", param="agent")
        return name

    def active(self, agent: str) -> PolicyStatus:
        """The policy that answers; `ensure_active` has been called."""
        status = policies.active(self._statuses[agent])
        assert status is not None, "ensure_active gives every agent one"
        return status

    def previous(self, agent: str) -> PolicyStatus | None:
        """What a roll-back goes back to; a base of another model is no longer served, so never it."""
        base = self._bases[agent]
        servable = {
            name: status for name, status in self._statuses[agent].items() if status.path or name == base
        }
        return policies.previous_active(servable)

    def path_owner(self, path: str) -> str | None:
        """The policy that was registered with this path, if any."""
        every = (status for statuses in self._statuses.values() for status in statuses.values())
        return next((status.policy for status in every if status.path == path), None)

    def check(self, policy: str, state: PolicyState) -> None:
        """Raises `PolicyTransitionError` if the policy cannot enter the state now."""
        agent = agent_of(policy)
        known = self._statuses[agent].get(policy)
        policies.transition(known.state if known else None, state, base=policy == self._bases[agent])

    async def change(
        self,
        policy: str,
        state: PolicyState,
        *,
        by: str,
        reason: str = "",
        path: str | None = None,
        evidence: dict[str, Any] | None = None,
    ) -> PolicyStatus:
        """Record that a policy enters a state. Raises `PolicyTransitionError`, `OutboxError` (nothing has changed)."""
        agent = agent_of(policy)
        async with self._changing:
            self.check(policy, state)
            event = PolicyChanged(
                agent=agent,
                policy=policy,
                state=state,
                by=by,
                reason=reason,
                path=path,
                evidence=evidence or {},
            )
            await self._delivery.append(event)
            self._events[agent].append(event)
            self._statuses[agent] = policies.project(self._events[agent])
            return self._statuses[agent][policy]


def agent_of(policy: str) -> str:
    """The agent's part of `agent@digest`."""
    return policy.partition("@")[0]
