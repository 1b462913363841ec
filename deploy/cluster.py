"""A Kafka cluster as the operator wants to see it: who is there, what lies on our topics, and who reads it."""

import time
from typing import NamedTuple, get_args

from kafka import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError, GroupIdNotFoundError

from feedback.bus.kafka.clients import as_bus_error, opened
from feedback.bus.kafka.lag import lag
from feedback.bus.kafka.options import KafkaOptions, Topic

_FIRST_SECONDS = (
    10.0  # in which a new cluster, asked for a group for the first time, makes its topic of groups
)


class TopicState(NamedTuple):
    """One topic. `lag` is how many records its collectors have not collected; None: they do not read it."""

    name: str
    partitions: int
    replicas: int
    lag: int | None


class Cluster(NamedTuple):
    """The brokers (`host:port`), those of our topics that are there, and how many collectors read them."""

    brokers: list[str]
    topics: list[TopicState]
    collectors: int


def look(options: KafkaOptions) -> Cluster:
    """See `Cluster`. Blocks; raises `BusError`."""
    names = [options.topic(topic) for topic in get_args(Topic)]
    with as_bus_error(options):
        admin = opened(KafkaAdminClient, options)
        try:
            brokers = [f"{broker['host']}:{broker['port']}" for broker in admin.describe_cluster()["brokers"]]
            there = [topic for topic in admin.describe_topics(names) if not topic["error_code"]]
            collectors = _members(admin, options.group)
        finally:
            admin.close()
    behind = lag(options) if there else {}
    topics = [
        TopicState(
            topic["name"],
            len(topic["partitions"]),
            min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
            behind.get(topic["name"]),
        )
        for topic in there
    ]
    return Cluster(brokers, sorted(topics), collectors)


def _members(admin: KafkaAdminClient, group: str) -> int:
    until = time.monotonic() + _FIRST_SECONDS
    while True:
        try:
            return len(admin.describe_groups([group])[group]["members"])
        except GroupIdNotFoundError:  # nobody has ever been in it
            return 0
        except CoordinatorNotAvailableError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
