"""What an OpenTelemetry Collector puts on a topic → the events that it would be over HTTP, on their own topics.

Each record is an export in protobuf (the Collector's encoding `otlp_proto`), of spans or of log records. Its events do
not go straight into the store: on their topics they are collected, kept and replayed like all others. They are redacted
first, as at the gateway's door.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from feedback import otlp
from feedback.events import RequestFinished
from feedback.redaction import Redactor
from feedback.store import Store

_CALLER = "otlp"  # who sends is known to the Collector alone


class Events(NamedTuple):
    """What an export tells, as JSON; `reason` says what of it none could be made of, and is empty otherwise."""

    bodies: list[bytes]
    reason: str


class Told:
    """Reads exports for one tenant. `store`: where it is looked up what evaluations are about."""

    def __init__(self, tenant: str, store: Store, redactor: Redactor) -> None:
        self._tenant = tenant
        self._store = store
        self._redactor = redactor

    def events(self, data: bytes) -> Events:
        """Of one record. Raises `StoreError`; nothing in the record makes it raise."""
        try:
            taken = otlp.convert(otlp.either(data), otlp.Source(self._tenant, _CALLER, datetime.now(UTC)))
        except otlp.OtlpError as error:
            taken = otlp.Converted((), 1, (str(error),))
        bodies = [event.model_dump_json().encode() for event in otlp.aimed(taken, self).events]
        if self._redactor.on:
            bodies = [self._redactor.event(body) for body in bodies]
        return Events(bodies, "; ".join(taken.reasons)[:1_000])

    def request(self, request_id: str) -> RequestFinished | None:
        """See `otlp.Known`."""
        return self._store.request(request_id, self._tenant)

    def of_span(self, span_id: str) -> RequestFinished | None:
        """See `otlp.Known`."""
        return self._store.newest(self._tenant, span_id=span_id)
