"""kafka-python's clients, opened so that what fails is a `BusError` and leaves neither thread nor socket behind."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from feedback.bus.base import BusError
from feedback.bus.kafka.options import KafkaOptions, connection

MAX_RECORD_BYTES = 64 * 2**20  # an event of the longest request that gateways take has some 12 MB
_BOOTSTRAP_MS = 5_000
_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
_RECEIVE_BYTES = (
    4 * MAX_RECORD_BYTES
)  # a broker's answer to a fetch holds one record too many, however large it is

Client = TypeVar("Client")


def opened(kind: Callable[..., Client], options: KafkaOptions, **arguments: Any) -> Client:
    """A client of this kind, which has spoken with a broker. Blocks for some seconds at most; raises `BusError`.

    With the first one, kafka-python is told to log no more than what nobody else would tell.
    """
    _quiet()
    spoken: list[tuple[KafkaNetClient, _Manager]] = []

    def network(**settings: Any) -> KafkaNetClient:
        net = NetworkSelector(**settings)
        manager = _Manager(net, **settings)
        spoken.append((KafkaNetClient(net, manager), manager))
        return spoken[-1][0]

    try:
        return kind(
            **connection(options),
            **arguments,
            kafka_client=network,
            bootstrap_timeout_ms=_BOOTSTRAP_MS,
            receive_message_max_bytes=_RECEIVE_BYTES,
        )
    except (KafkaError, OSError) as error:
        reason, answered = error, False
        for client, manager in spoken:
            reason = next(iter(manager.refusals.values()), error)
            answered = manager.broker_version is not None
            client.close()
        raise BusError(f"{_words(reason, options)}; {_mend(reason, options, answered=answered)}") from error


class _Manager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """Keeps what is in the way, by the broker, until it lets us in.

    kafka-python logs it, and raises that there was no broker in time, or that it has heard of no topics.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.refusals: dict[str | int, Exception] = {}

    def get_connection(self, node_id: str | int | None, *arguments: Any, **named: Any) -> KafkaConnection:
        """See `KafkaConnectionManager`."""
        known = self._conns.get(node_id)
        connection = super().get_connection(node_id, *arguments, **named)
        if connection is not known:
            connection.init_future.add_callback(lambda _: self.refusals.pop(connection.node_id, None))
            connection.init_future.add_errback(functools.partial(self._refused, connection.node_id))
        return connection

    def _refused(self, node_id: str | int, error: Exception) -> None:
        error.__traceback__ = error.__context__ = (
            None  # a socket hangs on them that kafka-python does not close
        )
        self.refusals.setdefault(node_id, error)


def misled(producer: KafkaProducer) -> str:
    """What is wrong with the certificates of the brokers that this one was sent on to, and the mend; empty for nothing.

    They are known by the names that brokers advertise, which nobody configures here: the first broker may well answer.
    """
    for error in list(producer._sender._client._manager.refusals.values()):  # noqa: SLF001  # nothing else tells of it
        if _CERTIFICATE in str(error):
            return (
                f"{error}; each broker's certificate must hold the name in its advertised.listeners, "
                "and ca_file who signed it"
            )
    return ""


@contextmanager
def as_bus_error(options: KafkaOptions) -> Iterator[None]:
    """What Kafka refuses, or does not answer, is raised as `BusError`."""
    try:
        yield
    except (KafkaError, OSError) as error:  # the latter of certificates
        raise BusError(_words(error, options)) from error


def _words(error: Exception, options: KafkaOptions) -> str:
    return f"Kafka at {', '.join(options.bootstrap_servers)}: {str(error) or type(error).__name__}"


def _mend(error: Exception, options: KafkaOptions, *, answered: bool) -> str:
    """What to look at where no client could be opened. `answered`: it is a broker, and the log-in comes next."""
    if _CERTIFICATE in str(error):
        return "ca_file must hold who signed its certificate, and bootstrap_servers a name that stands in it"
    if answered and options.sasl_mechanism is not None:  # of a refusal, kafka-python often knows only the end
        return (
            f"it answers and does not let us in: look at sasl_mechanism {options.sasl_mechanism}, "
            f"sasl_username {options.sasl_username} and the password in {options.sasl_password_variable}"
        )
    return f"is it there, and is its listener {options.security_protocol}, as security_protocol says?"


def _quiet() -> None:
    """Have kafka-python log errors alone, and none of connecting: what comes of it is raised, and told by us once."""
    logging.getLogger("kafka").setLevel(logging.ERROR)
    for name in ("kafka.net", "kafka.cluster"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
