"""What a gateway tells about itself: traces to a collector, metrics to whoever asks.

`Telemetry` is the whole interface: plain values in, nothing out, from the event loop's thread. No call waits, and none
raises: a defect in telling about an answer must not spoil the answer.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agents.manifest import Agent
from feedback.events import Rating
from gateway.condition import all_figures
from gateway.config import TelemetryOptions
from gateway.telemetry.export import Exporter, is_wanted
from gateway.telemetry.live import live
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome import AgentOutcome, ModelOutcome, Operation
from gateway.telemetry.spans import Spans, call_spans, call_trace
from gateway.trace import Trace, begin, request_trace

if TYPE_CHECKING:
    from gateway.state import Gateway  # which has the telemetry that this is

__all__ = ["AgentOutcome", "ModelOutcome", "Operation", "Telemetry", "call_spans", "call_trace"]

_TELL_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Telemetry:
    """One per gateway. Metrics are counted from the start; spans go out within `exporting`."""

    def __init__(self, options: TelemetryOptions) -> None:
        self._options = options
        self._metrics = None if options.metrics == "off" else Metrics()
        self._spans: Spans | None = None

    @contextlib.asynccontextmanager
    async def exporting(self) -> AsyncIterator[None]:
        """Send spans to the collector, if there is one, until the end of the block; then send what still waits.

        Meanwhile other worker processes hear every second of what is counted here.
        """
        telling = asyncio.create_task(self._tell(), name="metrics")
        try:
            if not is_wanted(self._options):
                yield
                return
            exporter = Exporter(self._options)
            self._spans = Spans(exporter, content=self._options.content)
            try:
                yield
            finally:
                self._spans = None
                await exporter.close()
        finally:
            telling.cancel()
            if self._metrics is not None:
                self._metrics.tell()

    async def _tell(self) -> None:
        while self._metrics is not None:
            await asyncio.sleep(_TELL_SECONDS)
            self._metrics.tell()

    def begin(self, request_id: str, headers: Iterable[tuple[bytes, bytes]]) -> Trace:
        """The trace context of a request that has just arrived; `headers` are ASGI's."""
        return begin(request_id, headers, share=self._options.sample if self._spans else 0.0)

    def enter(self, model: str) -> None:
        """A request to an agent or a plain model begins; `leave` it with the same name, however it ends."""
        if self._metrics is not None:
            with _harmless:
                self._metrics.in_flight(model, 1)

    def leave(self, model: str) -> None:
        """See `enter`."""
        if self._metrics is not None:
            with _harmless:
                self._metrics.in_flight(model, -1)

    def model_finished(
        self,
        trace: Trace,
        outcome: ModelOutcome,
        parameters: Mapping[str, Any],
        answers: Sequence[str] = (),
    ) -> None:
        """A request to a plain model is over. Its body, `parameters`, and the texts that it was answered with are read
        for a span only.
        """
        if self._metrics is not None or self._spans is not None:
            with _harmless:
                if self._metrics is not None:
                    self._metrics.model(outcome)
                if self._spans is not None and trace.sampled:
                    self._spans.model(trace, outcome, parameters, answers)

    def agent_finished(self, trace: Trace, agent: Agent, outcome: AgentOutcome) -> None:
        """A request to an agent is over, and recorded. With an error beside a completed event: it was not recorded."""
        with _harmless:
            if self._metrics is not None:
                self._metrics.agent(outcome)
            if self._spans is not None and trace.sampled:
                self._spans.agent(trace, agent, outcome)

    def http_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """Any HTTP request is over. `route` is a path as it was declared: `/v1/models/{name}`."""
        if self._metrics is not None:
            with _harmless:
                self._metrics.http(method, route, status, seconds)

    def rated(self, trace_id: str | None, agent: str, rating: Rating) -> None:
        """A rating has been taken of a request to `agent`, which belonged to this trace."""
        with _harmless:
            if self._metrics is not None:
                self._metrics.rating(agent, rating)
            if self._spans is not None:
                known = trace_id is not None and rating.request_id is not None
                trace = request_trace(str(trace_id), str(rating.request_id)) if known else None
                self._spans.rating(trace, rating)

    @contextlib.contextmanager
    def swapping(self, agent: str, kind: str) -> Iterator[None]:
        """Within it a policy is put behind an agent's name; an exception means that it was not."""
        done = False
        try:
            yield
            done = True
        finally:
            if self._metrics is not None:
                with _harmless:
                    self._metrics.swap(agent, kind, done=done)

    async def exposition(self, gateway: "Gateway") -> bytes | None:
        """The metrics of all workers in Prometheus' text format; None where they are off."""
        if self._metrics is None:
            return None
        workers = await all_figures(gateway)
        state = live(gateway, workers.values())
        pids = {number: worker.pid for number, worker in workers.items()}
        return await asyncio.to_thread(self._metrics.exposition, state, pids)


class _Harmless:
    """What goes wrong within is logged and over. A class, as a generator would cost more than what it guards."""

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        _log.error("a defect in telemetry", exc_info=error)
        return True


_harmless = _Harmless()
