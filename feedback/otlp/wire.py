"""OTLP's encodings (https://opentelemetry.io/docs/specs/otlp/) and the values in them."""

import base64
import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_DEPTH = 32  # of what an attribute holds as JSON: everything behind recurses
_IDS = ("traceId", "spanId", "parentSpanId")
_PARTS: Mapping[type[Any], tuple[str, ...]] = {
    ExportTraceServiceRequest: ("resourceSpans", "scopeSpans", "spans"),
    ExportLogsServiceRequest: ("resourceLogs", "scopeLogs", "logRecords"),
}

Export = TypeVar("Export", ExportTraceServiceRequest, ExportLogsServiceRequest)


class OtlpError(ValueError):
    """Bytes that are no export of OTLP. The message does not repeat them."""


def from_protobuf(data: bytes, kind: type[Export]) -> Export:
    """An export in protobuf. Raises `OtlpError`."""
    try:
        export: Export = kind.FromString(data)
    except DecodeError as error:
        raise OtlpError(f"no protobuf of an {kind.__name__}") from error
    return export


def from_json(data: bytes, kind: type[Export]) -> Export:
    """An export in OTLP/JSON: protobuf's JSON, but with ids in hexadecimal. Raises `OtlpError`."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise OtlpError(f"no JSON: {error}") from error
    if not isinstance(document, dict):
        raise OtlpError("no JSON object")
    try:
        _encode_ids(document, _PARTS[kind])
        export: Export = ParseDict(document, kind(), ignore_unknown_fields=True)
    except (ParseError, TypeError, ValueError) as error:
        raise OtlpError(f"no JSON of an {kind.__name__}") from error
    return export


def either(data: bytes) -> ExportTraceServiceRequest | ExportLogsServiceRequest:
    """An export in protobuf that does not say what it is of, as on a topic. Raises `OtlpError`.

    Each is nearly the other: what tells them apart is that a span begins with the 16 bytes of its trace's id, where a
    log record has a time.
    """
    with contextlib.suppress(OtlpError):  # of log records it may be no valid protobuf
        traces = from_protobuf(data, ExportTraceServiceRequest)
        spans = [x for part in traces.resource_spans for scope in part.scope_spans for x in scope.spans]
        if any(len(span.trace_id) == 16 and len(span.span_id) == 8 for span in spans):
            return traces
    logs = from_protobuf(data, ExportLogsServiceRequest)
    records = [x for part in logs.resource_logs for scope in part.scope_logs for x in scope.log_records]
    if any(record.time_unix_nano or record.observed_time_unix_nano for record in records):
        return logs
    raise OtlpError("neither spans nor log records")


def value(given: AnyValue) -> Any:
    """As JSON has it. NUL, which databases do not store in text, becomes U+FFFD; bytes become base64."""
    kind = given.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value(item) for item in given.array_value.values]
    if kind == "kvlist_value":
        return attributes(given.kvlist_value.values)
    plain = getattr(given, kind)
    if isinstance(plain, str):
        return plain.replace("\0", "\ufffd")
    if isinstance(plain, bytes):
        return base64.b64encode(plain).decode()
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain


def attributes(given: Iterable[KeyValue]) -> dict[str, Any]:
    """The values by their keys."""
    return {item.key.replace("\0", "\ufffd"): value(item.value) for item in given}


def structured(given: Any) -> Any:
    """What an attribute holds. Lists and objects come as JSON mostly, as attributes were flat for long."""
    if not isinstance(given, str):
        return given
    try:
        return _bounded(orjson.loads(given), _DEPTH) if given[:1] in '[{"' else given
    except ValueError:  # no JSON, or so deep that it stays text
        return given


def text(given: Any) -> str:
    """A text as it is, anything else as JSON."""
    return given if isinstance(given, str) else orjson.dumps(given).decode()


def _bounded(item: Any, room: int) -> Any:
    if isinstance(item, str):
        return item.replace("\0", "\ufffd")
    if isinstance(item, dict | list) and not room:
        raise ValueError("too deep")
    if isinstance(item, dict):
        return {_bounded(name, 0): _bounded(inner, room - 1) for name, inner in item.items()}
    return [_bounded(inner, room - 1) for inner in item] if isinstance(item, list) else item


def _encode_ids(document: dict[str, Any], path: tuple[str, ...]) -> None:
    """Ids in hexadecimal become base64, as protobuf's own JSON has them. Raises `ValueError`, `TypeError`."""
    holders = [document]
    for name in path:
        holders = [item for holder in holders for item in _dicts(holder.get(name))]
    links = [link for holder in holders for link in _dicts(holder.get("links"))]
    for holder in [*holders, *links]:
        for name in _IDS:
            if holder.get(name):
                holder[name] = base64.b64encode(bytes.fromhex(holder[name])).decode()


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
