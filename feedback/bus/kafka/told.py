"""What an OpenTelemetry Collector puts on a topic → the events that it would be over HTTP, on their own topics.

Each record is an export in protobuf (the Collector's encoding `otlp_proto`), of spans or of log records. Its events do
not go straight into the store: on their topics they are collected, kept and replayed like all others.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from feedback import otlp
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.reading import Read
from feedback.bus.kafka.records import Origin, Record, dead_letter, event_record
from feedback.events import RequestFinished
from feedback.store import Store

_CALLER = "otlp"  # who sends is known to the Collector alone

_log = logging.getLogger(__name__)


class Told:
    """Reads exports for one tenant. `store`: where it is looked up what evaluations are about."""

    def __init__(self, options: KafkaOptions, tenant: str, store: Store) -> None:
        self.topic = options.topic("otlp")
        self._options = options
        self._tenant = tenant
        self._store = store

    def records(self, batch: Sequence[Read]) -> list[Record]:
        """What is to be sent for these: events, and dead letters of what none can be made of. Raises `StoreError`."""
        return [record for read in batch for record in self._records(read)]

    def request(self, request_id: str) -> RequestFinished | None:
        """See `otlp.Known`."""
        return self._store.request(request_id, self._tenant)

    def of_span(self, span_id: str) -> RequestFinished | None:
        """See `otlp.Known`."""
        return self._store.newest(self._tenant, span_id=span_id)

    def _records(self, read: Read) -> Iterator[Record]:
        data = read.value or b""
        try:
            taken = otlp.convert(otlp.either(data), otlp.Source(self._tenant, _CALLER, datetime.now(UTC)))
        except otlp.OtlpError as error:
            taken = otlp.Converted((), 1, (str(error),))
        for event in otlp.aimed(taken, self).events:
            yield event_record(event.model_dump_json().encode(), self._options)
        if taken.reasons:
            reason = "; ".join(taken.reasons)[:1_000]
            _log.error("a dead letter, from %s: %s", self.topic, reason)
            yield from dead_letter(
                data, reason, self._options, Origin(read.topic, read.partition, read.offset)
            )
