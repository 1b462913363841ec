"""An agent is asked: its caller's limits are taken, the alias is resolved, the answer begins."""

from dataclasses import dataclass

from starlette.requests import Request

from agents.manifest import Agent
from feedback.events import Message, Sampling, Turn
from feedback.store import Key
from gateway.errors import ApiError
from gateway.invocation import Answer, Invocation
from gateway.metering import Meter, Used, used_by
from gateway.serving import Target
from gateway.state import gateway_of
from gateway.timeout import TIMEOUT_HEADER, requested_seconds


@dataclass(frozen=True)
class Asked:
    """What has begun: the answer, who gives it, and the headers that go out with it."""

    answer: Answer
    target: Target
    headers: dict[str, str]


async def ask(
    request: Request,
    caller: Key,
    agent: Agent,
    *,
    model: str,
    messages: tuple[Message, ...],
    sampling: Sampling,
    metadata: dict[str, str],
    turn: Turn | None = None,
) -> Asked:
    """Begin the answer of the agent behind the name `model`. Raises `ApiError` (400, 404, 429, 503), `StoreError`."""
    gateway = gateway_of(request)
    seconds = requested_seconds(request.headers.get(TIMEOUT_HEADER))
    tools = await gateway.tooling.toolbox(agent, metadata, caller.tenant)
    meter = await Meter.admit(
        gateway.limits,
        caller,
        agent.name,
        characters=sum(len(message.text) for message in messages),
        completion=_most_tokens(agent, sampling),
    )
    try:
        target = gateway.serving.resolve(
            model
        )  # only now: until the start nothing waits, nor can the alias move
    except ApiError:
        meter.settle(Used(0, 0))
        raise
    answer = gateway.invoker.start(
        Invocation(
            request_id=request.state.request_id,
            episode_id=request.state.episode_id,
            trace=request.state.trace,
            agent=agent,
            model=model,
            target=target,
            caller=caller,
            messages=messages,
            sampling=sampling,
            metadata=metadata,
            turn=turn,
            seconds=seconds,
            tools=tools,
        )
    )
    answer.when_over(lambda calls: meter.settle(None if calls is None else used_by(calls)))
    return Asked(answer, target, {"x-policy": target.policy, **meter.headers})


def _most_tokens(agent: Agent, sampling: Sampling) -> int:
    """What one request may generate."""
    limits = agent.limits
    most = limits.turns * min(sampling.max_tokens or limits.max_tokens, limits.max_tokens)
    return most if limits.total_tokens is None else min(most, limits.total_tokens)
