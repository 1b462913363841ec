"""One collector of a group: `python -m feedback.bus.kafka.collecting OPTIONS_JSON STORE_URL REDACTION_JSON`.

Its place on a topic moves on when the store has committed, never before: what was read twice, because somebody died in
between or partitions moved to another, changes nothing in the store. What is no event goes to the topic of dead letters
and to the store's table of them first.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError

from feedback.bus.base import BusError
from feedback.bus.kafka.clients import as_bus_error, opened
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import Sender
from feedback.bus.kafka.reading import Read
from feedback.bus.kafka.records import Origin, Record, dead_letter, event_record, topics_collected
from feedback.bus.kafka.told import Told
from feedback.collector import Collector, prepare_process
from feedback.redaction import RedactionOptions, Redactor
from feedback.store import DeadLetter, Store, StoreError

_BATCH = 500  # records in one transaction
_POLL_MS = 500
_SESSION_MS = 10_000  # for so long after a collector was killed, nobody collects its share
_COMMIT_MS = 5_000
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0
_NICE = 10

_Records = Mapping[TopicPartition, Sequence[Read]]

_log = logging.getLogger(__name__)


class Collecting:
    """A member of the group. `stop` may be set by any thread, and by a signal."""

    def __init__(
        self, options: KafkaOptions, collector: Collector, stop: threading.Event, redactor: Redactor
    ) -> None:
        self._options = options
        self._collector = collector
        self._stop = stop
        self._sender = Sender(options)
        tenant = options.otlp_tenant
        self._told = None if tenant is None else Told(tenant, collector.store, redactor)
        self._delay = _FIRST_DELAY
        self._behind = False  # something is in the store that the group does not know of yet

    def run(self) -> None:
        """Collect until stopped. Store or Kafka may be down for as long as they like."""
        while not self._stop.is_set():
            try:
                with self._joined() as consumer:
                    while not self._stop.is_set():
                        self._step(consumer)
            except BusError as error:
                _log.warning("nothing is collected, next try in %.1f s: %s", self._delay, error)
                self._stop.wait(self._next_delay())
        self._sender.close()

    @contextmanager
    def _joined(self) -> Iterator[KafkaConsumer]:
        with as_bus_error(self._options):
            consumer = opened(
                KafkaConsumer,
                self._options,
                group_id=self._options.group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                partition_assignment_strategy=[CooperativeStickyAssignor],
                max_poll_records=_BATCH,
                session_timeout_ms=_SESSION_MS,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
            try:
                consumer.subscribe([self._options.topic(topic) for topic in topics_collected(self._options)])
                yield consumer
            finally:
                consumer.close(autocommit=False, timeout_ms=_COMMIT_MS)

    def _step(self, consumer: KafkaConsumer) -> None:
        records = consumer.poll(timeout_ms=_POLL_MS)
        if records:
            try:
                self._collect(records)
            except (StoreError, BusError) as error:
                _put_back(consumer, records)
                _log.warning("events stay on their topics, next try in %.1f s: %s", self._delay, error)
                self._wait(consumer, self._next_delay())
                return
            self._delay = _FIRST_DELAY
            self._behind = True
        if self._behind:
            self._commit(consumer)

    def _collect(self, records: _Records) -> None:
        batch = [record for found in records.values() for record in found]
        if self._told is not None:
            told = self._options.topic("otlp")
            self._tell(self._told, [record for record in batch if record.topic == told])
            batch = [record for record in batch if record.topic != told]
        collected = self._collector.collect([record.value or b"" for record in batch])
        letters: list[Record] = []
        for place, letter in collected.letters.items():
            letters += dead_letter(letter.data, letter.reason, self._options, _origin(batch[place]))
        if letters:
            self._sender.send(letters)

    def _tell(self, told: Told, batch: Sequence[Read]) -> None:
        """Send what exports tell to the topics of events; what none can be made of is a dead letter in both places."""
        records: list[Record] = []
        letters: list[DeadLetter] = []
        for read in batch:
            data = read.value or b""
            bodies, reason = told.events(data)
            records += (event_record(body, self._options) for body in bodies)
            if reason:
                _log.error("a dead letter, from %s: %s", read.topic, reason)
                records += dead_letter(data, reason, self._options, _origin(read))
                letters.append(DeadLetter(data, reason))
        self._sender.send(records)
        self._collector.store.write([], letters)

    def _commit(self, consumer: KafkaConsumer) -> None:
        try:
            consumer.commit(timeout_ms=_COMMIT_MS)
            self._behind = False
        except KafkaError as error:
            # Partitions have gone to another, who reads again what this one has written; or Kafka is down.
            words = str(error) or type(error).__name__
            _log.info("the group does not know yet what was collected: %s", words)

    def _wait(self, consumer: KafkaConsumer, seconds: float) -> None:
        """Read nothing for so long, and stay in the group: who leaves it gives its partitions to others."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop.is_set():
            consumer.pause(*consumer.assignment())
            _put_back(consumer, consumer.poll(timeout_ms=_POLL_MS))  # of partitions that have just come
        consumer.resume(*consumer.paused())

    def _next_delay(self) -> float:
        delay, self._delay = self._delay, min(2 * self._delay, _LONGEST_DELAY)
        return delay


def _origin(record: Read) -> Origin:
    return Origin(record.topic, record.partition, record.offset)


def _put_back(consumer: KafkaConsumer, records: _Records) -> None:
    for partition, found in records.items():
        if partition in consumer.assignment():
            consumer.seek(partition, found[0].offset)


def main(options_json: str, store_url: str, redaction_json: str = "{}") -> int:
    """Collect until SIGTERM or SIGINT."""
    os.nice(_NICE)  # what takes events and answers requests on this machine comes first
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    prepare_process()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        options = KafkaOptions.model_validate_json(options_json)
        redactor = Redactor(RedactionOptions.model_validate_json(redaction_json))
        store = _opened_store(store_url, stop)
    except ValueError as error:  # of options, rules or URL
        _log.critical("%s", error)
        return 1
    if store is not None:
        Collecting(options, Collector(store), stop, redactor).run()
        store.close()
    return 0


def _opened_store(url: str, stop: threading.Event) -> Store | None:
    """The store, as soon as it can be opened; None when stopped before. Raises `ValueError`."""
    delay = _FIRST_DELAY
    while not stop.is_set():
        try:
            return Store.open(url)
        except StoreError as error:
            _log.warning("next try in %.1f s: %s", delay, error)
            stop.wait(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
