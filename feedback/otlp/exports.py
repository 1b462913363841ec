"""An export of either signal → events."""

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from feedback.otlp.evaluations import ratings
from feedback.otlp.requests import requests
from feedback.otlp.source import Converted, Source

Export = ExportTraceServiceRequest | ExportLogsServiceRequest


def convert(export: Export, source: Source) -> Converted:
    """What the export tells of: requests and the ratings on them, or ratings."""
    if isinstance(export, ExportTraceServiceRequest):
        return requests(export, source)
    return ratings(export, source)


def size(export: Export) -> int:
    """How many spans or log records there are."""
    if isinstance(export, ExportTraceServiceRequest):
        return sum(len(scope.spans) for resource in export.resource_spans for scope in resource.scope_spans)
    return sum(len(scope.log_records) for part in export.resource_logs for scope in part.scope_logs)
