"""One request to an agent: run the loop, record what happened however it ended, hand the answer on.

The generation runs in a task of its own and never waits for the client: a slow reader holds up neither a drain nor the
agent's time limit. The order that everything rests on: the answer is recorded, then it is finished.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp

from agents.loop import EpisodeError, Finished, run
from agents.manifest import Agent
from agents.model import Delta
from feedback.events import Call, Message, RequestFinished, Sampling, Status, Turn
from feedback.outbox import OutboxError
from feedback.store import Key
from gateway.errors import ApiError
from gateway.keeper import Keeper
from gateway.pool import Pool, PooledModel
from gateway.progress import Progress, Step, waited
from gateway.recorder import Recorder
from gateway.serving import Serving, Target
from gateway.telemetry import AgentOutcome, Telemetry, call_trace
from gateway.trace import Trace
from tools.knowledge import Knowledge
from tools.toolbox import Toolbox

_COMPLETE = {"stop", "length"}
_Steps = asyncio.Queue[Step | None]


@dataclass(frozen=True)
class Invocation:
    """Everything that is known before the agent starts. `target` was resolved from `model`, the name asked for, once.

    `calls_ns` grows with each model call: the Unix time, in nanoseconds, at which it went out.
    """

    request_id: str
    episode_id: str
    trace: Trace
    agent: Agent
    model: str
    target: Target
    caller: Key
    messages: tuple[Message, ...]
    sampling: Sampling
    metadata: dict[str, str]
    turn: Turn | None = None
    seconds: float | None = None  # what the client is ready to wait; the agent's own limit holds as well
    tools: Toolbox | None = None
    progress: Progress = field(default_factory=Progress)
    started: float = field(default_factory=time.perf_counter)
    started_ns: int = field(default_factory=time.time_ns)
    calls_ns: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Outcome:
    status: Status
    output: str | None = None
    error: str | None = None
    calls: tuple[Call, ...] = ()
    code: str | None = None


class Answer:
    """An answer that is being made. Read `steps` to the end, then `finished`; or `cancel`."""

    def __init__(
        self,
        invocation: Invocation,
        task: asyncio.Task[Finished],
        queue: _Steps,
        event: asyncio.Future[RequestFinished],
    ) -> None:
        self._invocation = invocation
        self._task = task
        self._queue = queue
        self._event = event
        task.add_done_callback(lambda _: queue.put_nowait(None))

    @property
    def event(self) -> RequestFinished | None:
        """What was recorded, however the request ended; None until then, and for ever where the record failed."""
        return self._event.result() if self._event.done() else None

    async def steps(self) -> AsyncIterator[Step]:
        """What is done, as it is done; ends when nothing more will come, for whatever reason."""
        while (step := await self._queue.get()) is not None:
            yield step

    @property
    def waited(self) -> float:
        """Seconds that have gone to tools and the model server so far."""
        if self.event is not None:
            return waited(self.event.calls)
        progress, begun = self._invocation.progress, self._invocation.calls_ns
        generating = (time.time_ns() - begun[-1]) / 1e9 if len(begun) > progress.model_calls else 0.0
        return waited(progress.calls) + generating

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

    def when_over(self, tell: Callable[[tuple[Call, ...] | None], None]) -> None:
        """Call `tell` once, with the calls that were made; None when it was cancelled and nobody knows."""

        def over(task: asyncio.Task[Finished]) -> None:
            if task.cancelled():
                tell(None)
            elif (error := task.exception()) is None:
                tell(task.result().calls)
            else:
                tell(error.calls if isinstance(error, EpisodeError) else None)

        self._task.add_done_callback(over)

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
        telemetry: Telemetry,
    ) -> None:
        self._session = session
        self._pool = pool
        self._knowledge = knowledge
        self._serving = serving
        self._recorder = recorder
        self._keeper = keeper
        self._telemetry = telemetry
        self._running: set[asyncio.Task[Finished]] = set()
        self._shut_down = False

    def start(self, invocation: Invocation) -> Answer:
        """Begin at once; the policy counts as in use until the request has been recorded."""
        leave = self._serving.enter(invocation.target.policy)
        self._telemetry.enter(invocation.agent.name)
        queue: _Steps = asyncio.Queue()
        event: asyncio.Future[RequestFinished] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._answer(invocation, queue, event))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: leave())
        task.add_done_callback(lambda _: self._telemetry.leave(invocation.agent.name))
        return Answer(invocation, task, queue, event)

    async def drain(self, seconds: float) -> None:
        """Let what is in progress finish; after `seconds`, cancel the rest and let it be recorded as such."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._running:  # what was accepted last may begin while others end
            left = deadline - asyncio.get_running_loop().time()
            _, late = await asyncio.wait(set(self._running), timeout=max(0.0, left))
            for task in late:
                self._shut_down = True
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _answer(
        self, invocation: Invocation, queue: _Steps, recorded: asyncio.Future[RequestFinished]
    ) -> Finished:
        text: list[str] = []
        outcome = _Outcome("failed", error="a defect in the gateway: see its log", code="internal_error")
        try:
            finished = await self._generate(invocation, queue, text)
            outcome = _Outcome("completed", finished.text, None, finished.calls)
        except EpisodeError as error:
            if error.code == "policy_not_loaded":
                self._keeper.suspect()
            calls = invocation.progress.cut_short(f"stopped, as the request failed ({error.code})")
            outcome = _Outcome("failed", None, f"{error.code}: {error}", calls, error.code)
            raise
        except asyncio.CancelledError:
            why = "the client went away, or cancelled it"
            if self._shut_down:
                why = "shutting_down: the gateway was shut down"
            calls = invocation.progress.cut_short(why)
            said = "".join(text) if text or invocation.tools is None else None
            outcome = _Outcome("cancelled", said, why, calls, code="cancelled")
            raise
        finally:
            recorded.set_result(await self._record(invocation, outcome))
        return finished

    async def _generate(self, invocation: Invocation, queue: _Steps, text: list[str]) -> Finished:
        target, progress = invocation.target, invocation.progress
        model = PooledModel(
            self._pool,
            self._session,
            name=target.served_name,
            policy=target.policy,
            base=self._serving.is_base(target.policy),
            headers=lambda: _model_call_headers(invocation),
        )
        finished: Finished | None = None
        parts = run(
            invocation.agent,
            invocation.messages,
            model=progress.watched(model),
            knowledge=self._knowledge,
            sampling=invocation.sampling,
            seconds=invocation.seconds,
            tools=invocation.tools,
        )
        # Nothing is awaited between two parts: the loop's time limit cancels this task, wherever it is then waiting.
        async for part in parts:
            if isinstance(part, Finished):
                finished = part
                continue
            queue.put_nowait(progress.step(part))
            if isinstance(part, Delta) and part.final:
                text.append(part.text)
        assert finished is not None, "the loop ends with Finished or raises"
        if finished.finish_reason not in _COMPLETE:
            message = f"the model server stopped before the answer was complete ({finished.finish_reason})"
            raise EpisodeError(message, status=502, code="upstream_unavailable", calls=finished.calls)
        return finished

    async def _record(self, invocation: Invocation, outcome: _Outcome) -> RequestFinished:
        event, code = _event(invocation, outcome), outcome.code
        try:
            await self._recorder.request(event)
        except OutboxError:
            code = "storage_full"
            raise
        finally:
            told = AgentOutcome(
                event,
                invocation.model,
                invocation.target.served_name,
                started_ns=invocation.started_ns,
                seconds=time.perf_counter() - invocation.started,
                error=code,
                model_calls_ns=tuple(invocation.calls_ns),
            )
            self._telemetry.agent_finished(invocation.trace, invocation.agent, told)
        return event


def _model_call_headers(invocation: Invocation) -> dict[str, str]:
    trace = call_trace(invocation.trace, len(invocation.calls_ns))
    invocation.calls_ns.append(time.time_ns())
    return trace.headers()


def _event(invocation: Invocation, outcome: _Outcome) -> RequestFinished:
    return RequestFinished(
        operation="chat" if invocation.turn is None else "responses",
        tenant=invocation.caller.tenant,
        request_id=invocation.request_id,
        episode_id=invocation.episode_id,
        trace_id=invocation.trace.trace_id,
        agent=invocation.agent.name,
        policy=invocation.target.policy,
        caller=invocation.caller.owner,
        input=invocation.messages,
        output=outcome.output,
        status=outcome.status,
        error=outcome.error,
        calls=outcome.calls,
        metadata=invocation.metadata,
        turn=invocation.turn,
        latency=time.perf_counter() - invocation.started,
    )
