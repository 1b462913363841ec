"""One request to an agent: run the loop, record what happened however it ended, hand the answer on.

The generation runs in a task of its own and never waits for the client: a slow reader holds up neither a drain nor the
agent's time limit. The order that everything rests on: the answer is recorded, then it is finished.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp

from agents.loop import Delta, EpisodeError, Finished, run
from agents.manifest import Agent
from feedback.events import Call, Message, RequestFinished, Sampling, Status
from feedback.store import Key
from gateway.errors import ApiError
from gateway.keeper import Keeper
from gateway.pool import Pool, PooledModel
from gateway.recorder import Recorder
from gateway.serving import Serving, Target
from tools.knowledge import Knowledge

_COMPLETE = {"stop", "length"}


@dataclass(frozen=True)
class Invocation:
    """Everything that is known before the agent starts. `target` was resolved from the alias, once."""

    request_id: str
    episode_id: str
    trace_id: str
    agent: Agent
    target: Target
    caller: Key
    messages: tuple[Message, ...]
    sampling: Sampling
    metadata: dict[str, str]
    started: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class _Outcome:
    status: Status
    output: str | None = None
    error: str | None = None
    calls: tuple[Call, ...] = ()


class Answer:
    """An answer that is being made. Read `deltas` to the end, then `finished`; or `cancel`."""

    def __init__(self, task: asyncio.Task[Finished], queue: asyncio.Queue[str | None]) -> None:
        self._task = task
        self._queue = queue
        task.add_done_callback(lambda _: queue.put_nowait(None))

    async def deltas(self) -> AsyncIterator[str]:
        """The text, in pieces, as it is generated; ends when nothing more will come, for whatever reason."""
        while (text := await self._queue.get()) is not None:
            yield text

    async def finished(self) -> Finished:
        """The whole answer, recorded. Raises `EpisodeError`, `OutboxError`; `ApiError` when a shutdown cut it short.

        Cancelling the wait cancels the answer.
        """
        try:
            return await self._task
        except asyncio.CancelledError as error:
            waiter = asyncio.current_task()
            if waiter is not None and waiter.cancelling():
                raise
            message = "The gateway is being shut down. Retry: another one takes over."
            raise ApiError(503, message, code="shutting_down", retry_after=5) from error

    async def cancel(self) -> None:
        """Stop generating, unless that is over, and return when the request has been recorded."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # seen: whoever cancels does not want the answer; the recorder logs its own errors


class Invoker:
    """Starts invocations, and knows those in progress."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        pool: Pool,
        *,
        knowledge: Knowledge,
        serving: Serving,
        recorder: Recorder,
        keeper: Keeper,
    ) -> None:
        self._session = session
        self._pool = pool
        self._knowledge = knowledge
        self._serving = serving
        self._recorder = recorder
        self._keeper = keeper
        self._running: set[asyncio.Task[Finished]] = set()

    def start(self, invocation: Invocation) -> Answer:
        """Begin at once; the policy counts as in use until the request has been recorded."""
        leave = self._serving.enter(invocation.target.policy)
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.create_task(self._answer(invocation, queue))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: leave())
        return Answer(task, queue)

    async def drain(self, seconds: float) -> None:
        """Let what is in progress finish; after `seconds`, cancel the rest and let it be recorded as such."""
        if not self._running:
            return
        _, late = await asyncio.wait(set(self._running), timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _answer(self, invocation: Invocation, queue: asyncio.Queue[str | None]) -> Finished:
        text: list[str] = []
        outcome = _Outcome("failed", error="a defect in the gateway: see its log")
        try:
            finished = await self._generate(invocation, queue, text)
            outcome = _Outcome("completed", finished.text, None, finished.calls)
        except EpisodeError as error:
            if error.code == "policy_not_loaded":
                self._keeper.suspect()
            outcome = _Outcome("failed", None, f"{error.code}: {error}", error.calls)
            raise
        except asyncio.CancelledError:
            outcome = _Outcome(
                "cancelled", "".join(text), "the client went away or the gateway was shut down"
            )
            raise
        finally:
            await self._recorder.request(_event(invocation, outcome))
        return finished

    async def _generate(
        self, invocation: Invocation, queue: asyncio.Queue[str | None], text: list[str]
    ) -> Finished:
        target = invocation.target
        model = PooledModel(
            self._pool,
            self._session,
            name=target.served_name,
            policy=target.policy,
            base=self._serving.is_base(target.policy),
        )
        finished: Finished | None = None
        parts = run(
            invocation.agent,
            invocation.messages,
            model=model,
            knowledge=self._knowledge,
            sampling=invocation.sampling,
        )
        # Nothing is awaited between two parts: the loop's time limit cancels this task, wherever it is then waiting.
        async for part in parts:
            if isinstance(part, Delta):
                text.append(part.text)
                queue.put_nowait(part.text)
            else:
                finished = part
        assert finished is not None, "the loop ends with Finished or raises"
        if finished.finish_reason not in _COMPLETE:
            message = f"the model server stopped before the answer was complete ({finished.finish_reason})"
            raise EpisodeError(message, status=502, code="upstream_unavailable", calls=finished.calls)
        return finished


def _event(invocation: Invocation, outcome: _Outcome) -> RequestFinished:
    return RequestFinished(
        tenant=invocation.caller.tenant,
        request_id=invocation.request_id,
        episode_id=invocation.episode_id,
        trace_id=invocation.trace_id,
        agent=invocation.agent.name,
        policy=invocation.target.policy,
        caller=invocation.caller.owner,
        input=invocation.messages,
        output=outcome.output,
        status=outcome.status,
        error=outcome.error,
        calls=outcome.calls,
        metadata=invocation.metadata,
        latency=time.perf_counter() - invocation.started,
    )
