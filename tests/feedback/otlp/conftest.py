"""Spans as the SDK of OpenTelemetry makes them, in the bytes in which it exports them."""

import json
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as g
from opentelemetry.trace import Status, StatusCode

from feedback import otlp

SOURCE = otlp.Source("acme", "app-key", datetime(2100, 1, 1, tzinfo=UTC))
ASKED = [{"role": "user", "parts": [{"type": "text", "content": "How many claims are open?"}]}]
ANSWERED = [{"role": "assistant", "parts": [{"type": "text", "content": "42"}], "finish_reason": "stop"}]


class App:
    """An instrumented application."""

    def __init__(self, service="claims-app"):
        resource = Resource({"service.name": service})
        self._spans, self._logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self._tracer, self._logger = tracers.get_tracer("app"), loggers.get_logger("app")

    @contextmanager
    def span(self, operation, error=None, **attributes):
        """`gen_ai_x__y` is the attribute `gen_ai.x.y`; `operation` None: of no GenAI operation."""
        named = {g.GEN_AI_OPERATION_NAME: operation} if operation else {}
        given = {name.replace("__", "."): value for name, value in attributes.items()}
        with self._tracer.start_as_current_span(str(operation), attributes=named | given) as span:
            yield span
            if error:
                span.set_status(Status(StatusCode.ERROR, error))

    def chat(self, **attributes):
        content = {
            g.GEN_AI_REQUEST_MODEL: "gpt-large",
            g.GEN_AI_INPUT_MESSAGES: json.dumps(ASKED),
            g.GEN_AI_OUTPUT_MESSAGES: json.dumps(ANSWERED),
        }
        return self.span("chat", **content | attributes)

    def evaluate(self, **attributes):
        given = {f"gen_ai.evaluation.{name.replace('__', '.')}": value for name, value in attributes.items()}
        self.log(given)

    def log(self, attributes, name="gen_ai.evaluation.result"):
        self._logger.emit(event_name=name, attributes=attributes, timestamp=1_700_000_000_000_000_000)

    def traces(self) -> ExportTraceServiceRequest:
        found = encode_spans(self._spans.get_finished_spans())
        self._spans.clear()
        export: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(found.SerializeToString())
        return export

    def logs(self) -> ExportLogsServiceRequest:
        found = encode_logs(self._logs.get_finished_logs())
        self._logs.clear()
        export: ExportLogsServiceRequest = ExportLogsServiceRequest.FromString(found.SerializeToString())
        return export


@pytest.fixture
def app():
    return App()


def told(app, source=SOURCE):
    """What the spans of an application become; all of them."""
    taken = otlp.convert(app.traces(), source)
    assert (taken.rejected, taken.reasons) == (0, ())
    return list(taken.events)
