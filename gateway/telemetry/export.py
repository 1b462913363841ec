"""The way out: finished spans and events go to a collector by OTLP/HTTP, in batches, from threads of their own.

Nothing here waits for the collector. The queues are bounded; what does not fit is dropped, and the SDK logs that.
"""

import asyncio
import os
import threading
import time
import uuid

from opentelemetry._logs import Logger, SeverityNumber  # `_`: OpenTelemetry may still change these
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from gateway.config import TelemetryOptions
from gateway.trace import Trace

Attributes = dict[str, AttributeValue]

_SCOPE = "flywheel.gateway"
# Part of no span. None would mean the one that is current in this task; an empty context counts as None for events.
_NOWHERE = set_span_in_context(INVALID_SPAN, Context())
_FLUSH_SECONDS = 3.0  # how long a shutdown lets the last batches go out
_SIGNALS = {
    "traces": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "logs": ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
}


def is_wanted(options: TelemetryOptions) -> bool:
    """Whether the options or the standard variables name somebody to export to."""
    return any(_is_wanted(options, signal) for signal in _SIGNALS)


def _is_wanted(options: TelemetryOptions, signal: str) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return bool(options.otlp_endpoint) or any(os.environ.get(name) for name in _SIGNALS[signal])


class Exporter:
    """Takes finished spans and events, from the event loop's thread only. Starts threads: `close` it."""

    def __init__(self, options: TelemetryOptions) -> None:
        self._ids = _GivenIds()
        # An id for each process: workers and replicas are told apart by it.
        names = {"service.name": "flywheel-gateway", "service.instance.id": str(uuid.uuid4())}
        resource = Resource.create(names).merge(OTELResourceDetector().detect())
        self._tracers = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._exporters: list[OTLPSpanExporter | OTLPLogExporter] = []
        if _is_wanted(options, "traces"):
            spans = OTLPSpanExporter(endpoint=_endpoint(options, "traces"))
            self._tracers.add_span_processor(BatchSpanProcessor(spans, max_queue_size=options.queue))
            self._exporters.append(spans)
        if _is_wanted(options, "logs"):
            logs = OTLPLogExporter(endpoint=_endpoint(options, "logs"))
            self._loggers.add_log_record_processor(
                BatchLogRecordProcessor(logs, max_queue_size=options.queue)
            )
            self._exporters.append(logs)
        self._tracer = self._tracers.get_tracer(_SCOPE)
        self._logger: Logger = self._loggers.get_logger(_SCOPE)

    def span(
        self,
        trace: Trace,
        name: str,
        kind: SpanKind,
        *,
        start: int,
        end: int,
        attributes: Attributes,
        error: str | None = None,
        remote_parent: bool = False,
    ) -> None:
        """Put one span on its way, from `start` to `end` (Unix time, ns); with an `error`, a code, as failed."""
        if error is not None:
            attributes["error.type"] = error
        self._ids.take(trace)
        span = self._tracer.start_span(
            name, _parent(trace, remote=remote_parent), kind, attributes, start_time=start
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def event(self, trace: Trace | None, name: str, time_ns: int, attributes: Attributes) -> None:
        """Put an event of a span (None: of none) on its way; the span itself may have ended long ago."""
        where = _NOWHERE if trace is None else _context(trace.trace_id, trace.span_id, trace, remote=False)
        self._logger.emit(
            timestamp=time_ns,
            context=where,
            severity_number=SeverityNumber.INFO,
            attributes=attributes,
            event_name=name,
        )

    async def close(self) -> None:
        """Send what waits, for a few seconds at most; a collector that does not answer holds up no shutdown."""
        until = time.monotonic() + _FLUSH_SECONDS
        # Threads that may be left behind: an executor's would be waited for when the interpreter ends.
        closing = [
            threading.Thread(target=provider.shutdown, daemon=True)
            for provider in (self._tracers, self._loggers)
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            await asyncio.to_thread(thread.join, max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in closing):
            for exporter in self._exporters:  # ends the waiting between two attempts
                await asyncio.to_thread(exporter.shutdown)


class _GivenIds(IdGenerator):
    """Gives the next span the ids that were decided on when its request began."""

    def __init__(self) -> None:
        self._trace_id = self._span_id = 0

    def take(self, trace: Trace) -> None:
        self._trace_id, self._span_id = int(trace.trace_id, 16), int(trace.span_id, 16)

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._span_id


def _endpoint(options: TelemetryOptions, signal: str) -> str | None:
    return options.otlp_endpoint and f"{options.otlp_endpoint.rstrip('/')}/v1/{signal}"


def _parent(trace: Trace, *, remote: bool) -> Context:
    if trace.parent_id is None:
        return _NOWHERE
    return _context(trace.trace_id, trace.parent_id, trace, remote=remote)


def _context(trace_id: str, span_id: str, trace: Trace, *, remote: bool) -> Context:
    state = TraceState.from_header([trace.state]) if trace.state else TraceState()
    context = SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(trace.flags), state)
    return set_span_in_context(NonRecordingSpan(context), Context())
