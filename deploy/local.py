"""Kafka and PostgreSQL as parts of one machine's Flywheel: `flywheel up --kafka` starts them, with their data in `var`.

Other commands must then look into the same store, whether it runs or not: they use what the last `up` has used.
"""

from collections.abc import Callable
from pathlib import Path

from deploy import broker, postgres
from deploy.errors import FlywheelError
from deploy.process import Program, holder
from deploy.settings import Settings
from feedback.bus.kafka.options import KafkaOptions

_LOOPBACK = ("127.0.0.1", "localhost")


def choose(settings: Settings, *, local: bool) -> None:
    """Have the commands use both from now on, or neither."""
    if local:
        settings.var.mkdir(parents=True, exist_ok=True)
        settings.local_mark.touch()
    else:
        settings.local_mark.unlink(missing_ok=True)


def with_services(settings: Settings) -> Settings:
    """The same with Kafka and PostgreSQL: those that the settings or KAFKA_BOOTSTRAP_SERVERS name, else local ones."""
    servers = broker.named()
    kafka = settings.kafka or KafkaOptions(bootstrap_servers=(f"127.0.0.1:{broker.PORT}",))
    feedback = settings.feedback
    if feedback.store_url.startswith("sqlite:"):
        feedback = feedback.model_copy(update={"store_url": postgres.url(_cluster(settings))})
    return settings.model_copy(
        update={
            "kafka": kafka.model_copy(update={"bootstrap_servers": servers}) if servers else kafka,
            "feedback": feedback,
        }
    )


def programs(settings: Settings) -> list[Callable[[], Program]]:
    """What makes the programs of those that are to be started here, each call blocking for some seconds the first time.

    `settings` are those `with_services`. Raises `FlywheelError`.
    """
    wanted: list[Callable[[], Program]] = []
    if not broker.named():
        port = _port(settings)
        wanted.append(lambda: broker.program(settings.var / "kafka", port, logs=settings.logs))
    if settings.feedback.store_url == postgres.url(_cluster(settings)):
        wanted.append(lambda: postgres.program(_cluster(settings), logs=settings.logs))
    return wanted


def _port(settings: Settings) -> int:
    """Where the settings expect the broker."""
    assert settings.kafka is not None
    server = settings.kafka.bootstrap_servers[0]
    host, _, port = server.rpartition(":")
    if host not in _LOOPBACK or not port.isdecimal():
        raise FlywheelError(f"[kafka] names {server}, which is not of this machine: start without --kafka")
    if (who := holder(int(port))) is not None:
        raise FlywheelError(
            f"port {port} of Kafka is taken by {who}: if that is a broker, name it in KAFKA_BOOTSTRAP_SERVERS; "
            f"else set another port: [kafka] bootstrap_servers"
        )
    return int(port)


def _cluster(settings: Settings) -> Path:
    return settings.var / "postgres"
