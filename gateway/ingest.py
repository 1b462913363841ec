"""What applications of others export by OpenTelemetry, from the bytes of a request to events on the disk.

OTLP/HTTP, https://opentelemetry.io/docs/specs/otlp/#otlphttp: protobuf or JSON, gzip or not; the answer, errors too, in
the encoding of the request. Unlike everywhere else here, an error is a `google.rpc.Status`.
"""

import asyncio
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.json_format import MessageToJson
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import Request
from starlette.responses import Response

from feedback import otlp
from feedback.delivery import Delivery
from feedback.events import Rating, RequestFinished
from feedback.store import Key
from gateway.config import IngestOptions
from gateway.errors import ApiError, to_api_error
from gateway.records import Records
from gateway.wire import read_body

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
_REASONS = 3  # that are told of one export
_GZIP = 16 + zlib.MAX_WBITS

Export = TypeVar("Export", ExportTraceServiceRequest, ExportLogsServiceRequest)


class _Form(NamedTuple):
    """One of the two encodings."""

    content_type: str
    parse: Callable[[bytes, Any], Any]
    encode: Callable[[Any], bytes]


_FORMS = {
    PROTOBUF: _Form(PROTOBUF, otlp.from_protobuf, lambda message: message.SerializeToString()),
    JSON: _Form(JSON, otlp.from_json, lambda message: MessageToJson(message, indent=None).encode()),
}


class _Known(NamedTuple):
    """What there is of one tenant, wherever it is on its way."""

    records: Records
    tenant: str

    def request(self, request_id: str) -> RequestFinished | None:
        return self.records.find(request_id, self.tenant)

    def of_span(self, span_id: str) -> RequestFinished | None:
        return self.records.of_span(span_id, self.tenant)


class Ingest:
    """Takes exports. One is read at a time: in memory, a small message of protobuf may be 90 times its bytes."""

    def __init__(self, delivery: Delivery, records: Records, options: IngestOptions) -> None:
        self._delivery = delivery
        self._records = records
        self._options = options
        self._reading = asyncio.Lock()
        self._running = 0

    async def traces(self, request: Request, sender: Key) -> Response:
        """Record the requests that the spans tell of. Raises `ApiError`, `OutboxError`, `StoreError`."""
        taken = await self._take(request, sender, ExportTraceServiceRequest)
        answer = ExportTraceServiceResponse()
        if taken.reasons:
            answer.partial_success.rejected_spans = taken.rejected
            answer.partial_success.error_message = _told(taken.reasons)
        return _answer(request, answer)

    async def logs(self, request: Request, sender: Key) -> Response:
        """Record the ratings among the log records. Raises `ApiError`, `OutboxError`, `StoreError`."""
        taken = await self._take(request, sender, ExportLogsServiceRequest)
        answer = ExportLogsServiceResponse()
        if taken.reasons:
            answer.partial_success.rejected_log_records = taken.rejected
            answer.partial_success.error_message = _told(taken.reasons)
        return _answer(request, answer)

    async def _take(self, request: Request, sender: Key, kind: type[Export]) -> otlp.Converted:
        """Return when all that can be taken is on the disk."""
        form, encoding = _form(request), _encoding(request)
        if self._running >= self._options.max_concurrent:
            message = (
                f"{self._running} exports are being taken, which is the limit. Retry after the given time."
            )
            raise ApiError(429, message, code="too_many_requests", retry_after=1)
        self._running += 1
        try:
            data = await read_body(request.receive, self._options.max_body_bytes)
            async with self._reading:
                taken = await asyncio.to_thread(self._read, data, encoding, form, kind, sender)
            await self._record(taken.events)
        finally:
            self._running -= 1
        return taken

    def _read(
        self, data: bytes, encoding: str, form: _Form, kind: type[Export], sender: Key
    ) -> otlp.Converted:
        if encoding == "gzip":
            data = _unpacked(data, self._options.max_unpacked_bytes)
        elif len(data) > self._options.max_unpacked_bytes:
            raise _too_large(self._options.max_unpacked_bytes)
        try:
            export = form.parse(data, kind)
        except otlp.OtlpError as error:
            raise ApiError(400, f"The body is {error}.", code="invalid_body") from error
        if otlp.size(export) > self._options.max_records:
            message = (
                f"At most {self._options.max_records} spans or log records are taken at once. Export fewer."
            )
            raise ApiError(413, message, code="request_too_large")
        taken = otlp.convert(export, otlp.Source(sender.tenant, sender.owner, datetime.now(UTC)))
        if "rate" not in sender.scopes:
            return _without_ratings(taken)
        return otlp.aimed(taken, _Known(self._records, sender.tenant))

    async def _record(self, events: Sequence[RequestFinished | Rating]) -> None:
        # All of them, before the first failure is told: what is sent again has no second effect.
        outcomes = await asyncio.gather(*map(self._delivery.append, events), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome


def refusal(request: Request, error: Exception) -> Response:
    """The answer to one of the `EXPECTED` exceptions."""
    problem = to_api_error(error)
    response = _answer(request, Status(message=problem.message))
    response.status_code = problem.status
    told = problem.response().headers
    response.headers.update({name: value for name, value in told.items() if not name.startswith("content-")})
    if problem.status == 415:
        response.headers["accept-encoding"] = "gzip"  # RFC 7694, section 3
    return response


def _answer(request: Request, message: Any) -> Response:
    form = _FORMS.get(_content_type(request), _FORMS[JSON])
    return Response(form.encode(message), media_type=form.content_type)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _form(request: Request) -> _Form:
    form = _FORMS.get(_content_type(request))
    if form is None:
        message = f"Exports are taken as {PROTOBUF} or {JSON}: name one as the content type."
        raise ApiError(415, message, code="unsupported_media_type")
    return form


def _encoding(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity"):
        message = "Exports are taken uncompressed or as gzip: set the exporter's compression to one of these."
        raise ApiError(415, message, code="unsupported_media_type")
    return encoding


def _unpacked(data: bytes, limit: int) -> bytes:
    """Unpack gzip, never further than the limit. Raises `ApiError` (400, 413)."""
    unpack = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpack.decompress(data, limit + 1)
    except zlib.error as error:
        raise ApiError(400, "The body is not gzip.", code="invalid_body") from error
    if len(unpacked) > limit:
        raise _too_large(limit)
    if not unpack.eof or unpack.unused_data:
        raise ApiError(400, "The body is not one whole gzip member.", code="invalid_body")
    return unpacked


def _too_large(limit: int) -> ApiError:
    message = (
        f"The export is larger than {limit} bytes unpacked. Export less at once: set a smaller batch size."
    )
    return ApiError(413, message, code="request_too_large")


def _without_ratings(taken: otlp.Converted) -> otlp.Converted:
    """For a key that may not rate."""
    kept = tuple(event for event in taken.events if not isinstance(event, Rating))
    if len(kept) == len(taken.events):
        return taken
    reason = f"{len(taken.events) - len(kept)} evaluations: this key needs the scope 'rate' for them"
    return taken._replace(events=kept, reasons=(reason, *taken.reasons))


def _told(reasons: Sequence[str]) -> str:
    more = len(reasons) - _REASONS
    return "; ".join(reasons[:_REASONS]) + (f"; and {more} more" if more > 0 else "")
