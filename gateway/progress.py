"""How far an agent has come with one request: which of its calls are over, and which run.

The loop tells its calls when it ends. Who is shown a step while it is made, and the record of a request that was cut
short, need them sooner.
"""

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from agents.acting import ToolStarted
from agents.model import Delta, Model, ModelRequest
from feedback.events import Call, ExternalCall, ModelCall, ToolCall


class Step(NamedTuple):
    """A part of what the agent does. `call` is the index that its call has, or will have, in the request's `calls`."""

    part: Delta | ToolStarted | ToolCall
    call: int


class _Running(NamedTuple):
    """A tool call that is under way."""

    tool: ToolStarted
    began: datetime
    clock: float


class Progress:
    """That of one request."""

    def __init__(self) -> None:
        self.calls: list[Call] = []  # those that are over, in the order in which they are recorded
        self._running: deque[_Running] = deque()

    def watched(self, model: Model) -> Model:
        """The same model, of which is noted what it has answered."""
        return _Watched(model, self.calls)

    def step(self, part: Delta | ToolStarted | ToolCall) -> Step:
        """Note what the loop says that it does."""
        if isinstance(part, ToolStarted):
            self._running.append(_Running(part, datetime.now(UTC), time.perf_counter()))
            return Step(part, len(self.calls) + len(self._running) - 1)
        if isinstance(part, Delta):
            return Step(part, len(self.calls))
        if self._running:  # they end in the order in which they started; the retrieval is not announced
            self._running.popleft()
        self.calls.append(part)
        return Step(part, len(self.calls) - 1)

    def cut_short(self, why: str) -> tuple[Call, ...]:
        """All calls of a request that is cancelled now: those that still run have failed, and say why."""
        now = time.perf_counter()
        stopped = (
            ToolCall(
                name=running.tool.name,
                arguments=_object(running.tool.arguments),
                error=why,
                started=running.began,
                latency=now - running.clock,
            )
            for running in self._running
        )
        return (*self.calls, *stopped)

    @property
    def model_calls(self) -> int:
        """How many calls of the model are over."""
        return sum(isinstance(call, ModelCall) for call in self.calls)


class _Watched(Model):
    """A model whose answers are noted as they pass by."""

    def __init__(self, model: Model, calls: list[Call]) -> None:
        self.policy = model.policy
        self._model = model
        self._calls = calls

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        """See `agents.model.Model.stream`. Raises `ModelError`."""
        parts = self._model.stream(request)
        try:
            async for part in parts:
                if isinstance(part, ModelCall):
                    self._calls.append(part)
                yield part
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()


def waited(calls: Iterable[Call]) -> float:
    """Seconds in which at least one of the calls was under way: tools that run at once are waited for together."""
    total, end = 0.0, 0.0
    for began, latency in sorted((_began(call), call.latency) for call in calls):
        total += max(0.0, began + latency - max(began, end))
        end = max(end, began + latency)
    return total


def _began(call: Call) -> float:
    assert not isinstance(call, ExternalCall) and call.started is not None, "an agent's, made here"
    return call.started.timestamp()


def _object(arguments: str) -> dict[str, object]:
    try:
        read = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}
