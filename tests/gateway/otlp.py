"""Reading OTLP in tests: a receiver that takes what the gateway exports, and the JSON that a collector writes."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

INTERNAL, CLIENT = 1, 3  # of SpanKind
ERROR = 2  # of StatusCode


@dataclass(frozen=True)
class Span:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: int  # Unix time, nanoseconds
    end: int
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]

    def contains(self, other: "Span") -> bool:
        return self.start <= other.start <= other.end <= self.end


@dataclass(frozen=True)
class Event:
    name: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


def spans(document: dict[str, Any]) -> Iterable[Span]:
    """The spans of one document of OTLP/JSON."""
    for resource in document.get("resourceSpans", ()):
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield Span(
                    span["name"],
                    span["kind"],
                    span["traceId"],
                    span["spanId"],
                    span.get("parentSpanId", ""),
                    int(span["startTimeUnixNano"]),
                    int(span["endTimeUnixNano"]),
                    span.get("status", {}).get("code", 0),
                    _attributes(span),
                    _attributes(resource["resource"]),
                )


def events(document: dict[str, Any]) -> Iterable[Event]:
    """The events of one document of OTLP/JSON."""
    for resource in document.get("resourceLogs", ()):
        for scope in resource["scopeLogs"]:
            for record in scope["logRecords"]:
                ids = record.get("traceId", ""), record.get("spanId", "")
                yield Event(record["eventName"], *ids, _attributes(record))


@dataclass
class Receiver:
    """A collector that keeps what it is sent."""

    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    delay: float = 0.0
    url: str = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator["Receiver"]:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_post("/v1/logs", self._logs)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _traces(self, request: web.Request) -> web.Response:
        self.spans += spans(document(ExportTraceServiceRequest.FromString(await self._body(request))))
        return web.Response()

    async def _logs(self, request: web.Request) -> web.Response:
        self.events += events(document(ExportLogsServiceRequest.FromString(await self._body(request))))
        return web.Response()

    async def _body(self, request: web.Request) -> bytes:
        await asyncio.sleep(self.delay)
        self.bodies.append(await request.read())
        return self.bodies[-1]


def document(message: Any) -> dict[str, Any]:
    """A protobuf as OTLP/JSON, which has ids in hexadecimal where protobuf's own JSON has base64."""
    document: dict[str, Any] = MessageToDict(message, use_integers_for_enums=True)
    return {name: _with_hex_ids(value) for name, value in document.items()}


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_hex_ids(item) for item in value]
    if isinstance(value, dict):
        ids = {"traceId", "spanId", "parentSpanId"}
        return {
            name: base64.b64decode(item).hex() if name in ids else _with_hex_ids(item)
            for name, item in value.items()
        }
    return value


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: _value(item["value"]) for item in holder.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    if kind == "intValue":
        return int(inner)
    return [_value(item) for item in inner["values"]] if kind == "arrayValue" else inner
