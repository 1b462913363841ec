"""Whether the way of events is free: the database at its end, Kafka and its topics, and whoever collects from them."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, func, inspect, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from deploy.finding import Finding, Verdict
from deploy.settings import Settings
from deploy.store import mend, shown
from deploy.supervisor import current
from feedback.bus.base import BusError
from feedback.bus.kafka.options import KafkaOptions
from feedback.store.engine import connect
from feedback.store.tables import dead_letters


def store(settings: Settings) -> Iterator[Finding]:
    """Whether the database answers, and whether there are dead letters in it. Makes nothing where there is none."""
    where = shown(settings)
    url = make_url(settings.feedback.store_url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        yield Finding("ok", f"no store yet: the first start makes {where}")
        return
    try:
        engine = connect(settings.feedback.store_url)
        try:
            with engine.connect() as connection:
                yield Finding("ok", f"the store answers: {where}")
                yield from _letters(connection)
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError, ValueError) as error:
        what = " ".join(str(error.__cause__ or error).split())
        yield Finding(_verdict(settings), f"the store {where} does not answer: {what}", mend(settings))


def _verdict(settings: Settings) -> Verdict:
    """Of a service that does not answer: one that `flywheel up` starts need not run while Flywheel does not."""
    return "warning" if settings.local_mark.is_file() and current(settings) is None else "broken"


def _letters(connection: Connection) -> Iterator[Finding]:
    if not inspect(connection).has_table(dead_letters.name):
        return
    count = connection.execute(select(func.count()).select_from(dead_letters)).scalar_one()
    if count:
        yield Finding("warning", f"{count} records could not be read", "see `flywheel dead-letters list`")


def kafka(settings: Settings) -> Iterator[Finding]:
    """Whether a broker answers, the topics are there, and somebody collects what lies on them."""
    if settings.kafka is None:
        yield Finding("ok", "no Kafka: events go from the outbox straight to the store")
        return
    try:
        yield from _cluster(settings.kafka)
    except BusError as error:
        start = "start it with `flywheel up --kafka`, or " if settings.local_mark.is_file() else ""
        waiting = f"{start}see [kafka]; events wait in the gateway's outbox meanwhile"
        yield Finding(_verdict(settings), str(error), waiting)


def _cluster(options: KafkaOptions) -> Iterator[Finding]:
    from deploy import cluster  # noqa: PLC0415  # kafka-python is an extra
    from feedback.bus.kafka import topics  # noqa: PLC0415  # the same

    state = cluster.look(options)
    yield Finding("ok", f"Kafka answers: {', '.join(state.brokers)}")
    if differences := topics.differences(options):
        make = "run `flywheel kafka init`; what differs stays as it is: change it with Kafka's own tools, or [kafka]"
        yield Finding("broken", "; ".join(differences), make)
        return
    behind = sum(topic.lag or 0 for topic in state.topics)
    if not state.collectors:
        what = f"nobody collects in the group {options.group}, and {behind} records wait"
        yield Finding(
            "broken", what, "start Flywheel with `flywheel up`, or a collector: `flywheel kafka collect`"
        )
    else:
        yield Finding("ok", f"{state.collectors} collectors, {behind} records behind")
