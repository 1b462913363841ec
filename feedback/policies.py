"""The life of a policy, as a table, and where each policy is in it, as a pure projection of `PolicyChanged` events.

One policy of an agent is active at a time: that another becomes active retires the one before it, in one event, so that
no crash can leave an agent with two or with none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from feedback.events import PolicyChanged, PolicyState

TRANSITIONS: dict[PolicyState | None, frozenset[PolicyState]] = {
    None: frozenset(
        {"candidate", "active"}
    ),  # active: the base model, which is there before anything was learned
    "candidate": frozenset({"evaluated", "rejected"}),
    "evaluated": frozenset(
        {"evaluated", "canary", "active", "rejected"}
    ),  # evaluated again; active: on one machine
    "canary": frozenset({"active", "rejected", "rolled_back"}),
    "active": frozenset({"retired", "rolled_back"}),
    "retired": frozenset({"active", "rolled_back"}),  # rolled back: found bad when another was active already
    "rolled_back": frozenset({"active"}),
    "rejected": frozenset(),
}


_BASE = "@base-"
TOLD: Final = "@otlp:"  # only in the names of what answered elsewhere


def base_policy(agent: str, digest: str) -> str:
    """The policy of an agent that has learned nothing yet: the base model with this digest."""
    return f"{agent}{_BASE}{digest}"


def told_policy(agent: str, model: str) -> str:
    """What answered elsewhere, as others told of it: named like no policy of ours, whatever they call it."""
    return f"{agent.replace('@', '~')}{TOLD}{model.replace('@', '~')}"


def is_base(policy: str) -> bool:
    """Whether `policy` is named as `base_policy` names it. No checkpoint may be."""
    return _BASE in policy


class PolicyTransitionError(Exception):
    """A policy cannot go from the state that it is in to the one asked for. The message says where it can go."""


def transition(current: PolicyState | None, new: PolicyState, *, base: bool = False) -> PolicyState:
    """Return `new` if the table allows it. Raises `PolicyTransitionError`.

    `current` is None for a policy that is not registered; only the `base` model may become active from there.
    """
    allowed = TRANSITIONS[current]
    if current is None and not base:
        allowed -= {"active"}
    if new in allowed:
        return new
    here = "a policy that is not registered" if current is None else f"a policy that is {current}"
    where = f"can only become {', '.join(sorted(allowed))}" if allowed else "stays so"
    raise PolicyTransitionError(f"{here} cannot become {new}: it {where}")


@dataclass(frozen=True)
class PolicyStatus:
    """Where a policy is now. `last` is the event of its own that came last; `path` is None for the base model."""

    policy: str
    agent: str
    state: PolicyState
    since: datetime
    path: str | None
    history: tuple[PolicyChanged, ...]

    @property
    def last(self) -> PolicyChanged:
        """Who changed this policy last, why, and on what evidence."""
        return self.history[-1]


def project(events: Iterable[PolicyChanged]) -> dict[str, PolicyStatus]:
    """The status of each policy of one agent, by name, from its events in order. Raises `ValueError` for two agents.

    Events are facts: one that `transition` would have refused is followed all the same.
    """
    statuses: dict[str, PolicyStatus] = {}
    for event in events:
        for other in statuses.values():
            if other.agent != event.agent:
                raise ValueError(f"events of {other.agent} and {event.agent} together")
        before = active(statuses)
        if event.state == "active" and before is not None and before.policy != event.policy:
            statuses[before.policy] = _moved(before, "retired", event.time)
        known = statuses.get(event.policy)
        statuses[event.policy] = PolicyStatus(
            event.policy,
            event.agent,
            event.state,
            event.time,
            event.path if event.path is not None or known is None else known.path,
            (*(known.history if known else ()), event),
        )
    return statuses


def active(statuses: Mapping[str, PolicyStatus]) -> PolicyStatus | None:
    """The policy that answers; None before the first."""
    return next((status for status in statuses.values() if status.state == "active"), None)


def previous_active(statuses: Mapping[str, PolicyStatus]) -> PolicyStatus | None:
    """What a roll-back goes back to: of the retired policies, the one that was active last; None when there is none.

    A policy that was itself rolled back is not gone back to.
    """
    retired = [status for status in statuses.values() if status.state == "retired"]
    served = [status for status in retired if any(event.state == "active" for event in status.history)]
    return max(served, key=lambda status: status.since, default=None)


def _moved(status: PolicyStatus, state: PolicyState, time: datetime) -> PolicyStatus:
    return PolicyStatus(status.policy, status.agent, state, time, status.path, status.history)
