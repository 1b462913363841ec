"""The bus of many machines: a batch is taken when Kafka has all of it, as safe as its topics are."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from feedback.bus.base import Bus, BusError
from feedback.bus.kafka.clients import MAX_RECORD_BYTES, misled, opened
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.records import Record, dead_letter, event_record
from feedback.bus.kafka.replaying import replay
from feedback.collector import Collector
from feedback.store import Store, StoreError

_BATCH_BYTES = 2**19  # per partition, before compression; every cluster takes as much
_LINGER_MS = 100  # a batch goes when it is full or all of it is there, which is said by `flush`
_REQUEST_MS = 4_000
_DELIVERY_MS = 8_000  # for all attempts together; then whoever publishes decides
_WAIT_SECONDS = 9.0  # for what kafka-python itself should have given up by then, and sometimes has not
_CLOSE_SECONDS = 1.0
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

_log = logging.getLogger(__name__)


class Sender:
    """Sends records and waits for them. Blocks; for one thread at a time.

    After a failure kafka-python's producer is thrown away: nothing of the old one can come behind what is sent next,
    and one that a broker has refused a record accepts no others.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._producer: KafkaProducer | None = None

    def send(self, records: Sequence[Record]) -> None:
        """Return when all are acknowledged by as many brokers as the topics ask for. Raises `BusError`.

        What is too large for its topic is sent as a dead letter, in pieces: neither lost nor in the way of the others.
        """
        failed = self._attempt(records)
        if not any(isinstance(error, _TOO_LARGE) for _, error in failed):
            self._tell(failed)
        else:  # all that was under way with it is told the same
            for record, _ in failed:
                self._send_alone(record)

    def _send_alone(self, record: Record) -> None:
        failed = self._attempt([record])
        if failed and isinstance(failed[0][1], _TOO_LARGE):
            reason = f"record: its {len(record.value)} bytes are more than {record.topic} takes"
            _log.error("%s: it lies in pieces among the dead letters, and `flywheel replay` finds it", reason)
            failed = self._attempt(list(dead_letter(record.value, reason, self._options)))
        self._tell(failed)

    def _tell(self, failed: Sequence[tuple[Record, KafkaError]]) -> None:
        if failed:
            record, error = failed[0]
            raise BusError(f"{len(failed)} records were not taken, one by {record.topic}: {_words(error)}")

    def close(self) -> None:
        """Give up what has not been acknowledged. May be called again."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):  # raised where something is under way, and then nothing is closed
                producer.close(timeout=_CLOSE_SECONDS)
            producer._sender.force_close()  # noqa: SLF001  # else its thread would go on, and send what was given up

    def _attempt(self, records: Sequence[Record]) -> list[tuple[Record, KafkaError]]:
        """Those that were not acknowledged, and why; then nothing of theirs is under way. Raises `BusError`."""
        producer = self._producer = self._producer or self._open()
        failed: list[tuple[Record, KafkaError]] = []
        sent = []
        for record in records:
            headers = [(name, value.encode()) for name, value in record.headers.items()]
            try:
                sent.append((record, producer.send(record.topic, record.value, record.key, headers)))
            except _TOO_LARGE as error:
                failed.append((record, error))
            except KafkaError as error:  # nobody knows the topic, which has taken some seconds to find out
                mend = misled(producer) or f"{_words(error)} (`flywheel kafka init` makes it)"
                self.close()
                raise BusError(f"{record.topic}: {mend}") from error
        deadline = time.monotonic() + _WAIT_SECONDS
        with suppress(KafkaError):  # of its failures, and of batches that it split, the futures tell
            producer.flush(_WAIT_SECONDS)
        for record, future in sent:
            try:
                future.get(max(0.0, deadline - time.monotonic()))
            except KafkaError as error:
                failed.append((record, error))
        if failed:
            self.close()
        return failed

    def _open(self) -> KafkaProducer:
        return opened(
            KafkaProducer,
            self._options,
            acks="all",
            enable_idempotence=True,
            compression_type=None if self._options.compression == "none" else self._options.compression,
            batch_size=_BATCH_BYTES,
            linger_ms=_LINGER_MS,
            max_request_size=MAX_RECORD_BYTES,
            request_timeout_ms=_REQUEST_MS,
            delivery_timeout_ms=_DELIVERY_MS,
            max_block_ms=_REQUEST_MS,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )


class KafkaBus(Bus):
    """A `Bus`. One thread of its own speaks with Kafka, a batch after the other."""

    start_seconds = 10.0

    def __init__(self, options: KafkaOptions, store_url: str | None = None) -> None:
        """Connects when the first batch is published. `store_url`: what `settle` brings up to date."""
        self._options = options
        self._store_url = store_url
        self._sender = Sender(options)
        self._thread = ThreadPoolExecutor(1, "kafka")

    async def publish(self, batch: Sequence[bytes]) -> None:
        """Return when Kafka has acknowledged the whole batch. Raises `BusError`."""
        await self._do(lambda: self._sender.send([event_record(body, self._options) for body in batch]))

    async def settle(self) -> None:
        """See `Bus`: read the topic of policies, which is short and kept for ever, into the store."""
        if self._store_url is not None:
            await self._do(self._settle)

    async def close(self) -> None:
        """See `Bus`."""
        await self._do(self._sender.close)
        self._thread.shutdown()

    def _settle(self) -> None:
        try:
            store = Store.open(str(self._store_url))
            try:
                replay(self._options, Collector(store), topics=("policies",))
            finally:
                store.close()
        except StoreError as error:
            raise BusError(f"the store did not take the policies: {error}") from error

    async def _do(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _words(error: KafkaError) -> str:
    return str(error) or type(error).__name__
