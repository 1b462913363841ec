"""kafka-python's clients, opened so that what fails is a `BusError` and leaves neither thread nor socket behind."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from feedback.bus.base import BusError
from feedback.bus.kafka.options import KafkaOptions, connection

MAX_RECORD_BYTES = 64 * 2**20  # an event of the longest request that gateways take has some 12 MB
_BOOTSTRAP_MS = 5_000
_RECEIVE_BYTES = (
    4 * MAX_RECORD_BYTES
)  # a broker's answer to a fetch holds one record too many, however large it is

Client = TypeVar("Client")


def opened(kind: Callable[..., Client], options: KafkaOptions, **arguments: Any) -> Client:
    """A client of this kind, which has spoken with a broker. Blocks for some seconds at most; raises `BusError`.

    With the first one, kafka-python is told to log no more than what nobody else would tell.
    """
    _quiet()
    networks: list[KafkaNetClient] = []

    def network(**settings: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**settings))
        return networks[-1]

    try:
        with as_bus_error(options):
            return kind(
                **connection(options),
                **arguments,
                kafka_client=network,
                bootstrap_timeout_ms=_BOOTSTRAP_MS,
                receive_message_max_bytes=_RECEIVE_BYTES,
            )
    except BusError:
        for each in networks:
            each.close()
        raise


@contextmanager
def as_bus_error(options: KafkaOptions) -> Iterator[None]:
    """What Kafka refuses, or does not answer, is raised as `BusError`."""
    try:
        yield
    except (KafkaError, OSError) as error:  # the latter of certificates
        servers = ", ".join(options.bootstrap_servers)
        raise BusError(f"Kafka at {servers}: {str(error) or type(error).__name__}") from error


def _quiet() -> None:
    """Have kafka-python log errors alone, and none of connecting: what comes of it is raised, and told by us once."""
    logging.getLogger("kafka").setLevel(logging.ERROR)
    for name in ("kafka.net", "kafka.cluster"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
