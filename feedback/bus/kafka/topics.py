"""The topics, as the options want them: made where they are missing, and told apart where they are otherwise."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from feedback.bus.base import BusError
from feedback.bus.kafka.clients import MAX_RECORD_BYTES, as_bus_error, opened
from feedback.bus.kafka.options import KafkaOptions, Topic

_AROUND_BYTES = 2**20  # of a batch with one record in it, and for bytes that compression makes longer
_DAY_MS = 86_400_000
_READY_MS = 30_000
_ALREADY_EXISTS = 36
_AT_LEAST = ("min.insync.replicas", "max.message.bytes")


class _Topic(NamedTuple):
    partitions: int
    replication: int
    settings: Mapping[str, str]


def create(options: KafkaOptions) -> list[str]:
    """Make the topics that are missing, and return their names. Blocks.

    Raises `BusError` where Kafka cannot be reached or refuses, and where a topic is otherwise than asked for (see
    `differences`): nothing is changed about one that is there, for somebody may have made it so on purpose.
    """
    wanted = _wanted(options)
    with _admin(options) as admin:
        there = _found(admin, wanted)
        missing = [name for name in wanted if name not in there]
        if missing:
            _make(admin, {name: wanted[name] for name in missing})
            there = _found(admin, wanted)
    if found := list(_compare(wanted, there)):
        raise BusError("topics are not as asked for: " + "; ".join(found))
    return missing


def differences(options: KafkaOptions) -> list[str]:
    """What is otherwise than asked for, a few words each; more than asked for is none. Blocks; raises `BusError`."""
    wanted = _wanted(options)
    with _admin(options) as admin:
        return list(_compare(wanted, _found(admin, wanted)))


def _wanted(options: KafkaOptions) -> dict[str, _Topic]:
    return {options.topic(topic): _wanted_of(topic, options) for topic in get_args(Topic)}


def _wanted_of(topic: Topic, options: KafkaOptions) -> _Topic:
    kept = topic in {"policies", "erasures"}
    settings = {
        "cleanup.policy": "delete",
        "retention.ms": "-1" if kept else str(round(options.retention_days * _DAY_MS)),
        "retention.bytes": "-1",
        "min.insync.replicas": str(options.min_insync_replicas),
        "max.message.bytes": str(MAX_RECORD_BYTES + _AROUND_BYTES),
    }
    if topic == "otlp" and options.otlp_tenant is not None:
        # Others write there, with zstd or snappy, for which kafka-python needs packages: the broker packs it anew.
        settings["compression.type"] = "lz4"
    shared = not kept and topic != "dead-letter"
    return _Topic(options.partitions if shared else 1, options.replication, settings)


@contextmanager
def _admin(options: KafkaOptions) -> Iterator[KafkaAdminClient]:
    with as_bus_error(options):
        admin = opened(KafkaAdminClient, options)
        try:
            yield admin
        finally:
            admin.close()


def _make(admin: KafkaAdminClient, topics: Mapping[str, _Topic]) -> None:
    asked = {
        name: {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replication,
            "configs": topic.settings,
        }
        for name, topic in topics.items()
    }
    answer = admin.create_topics(asked, raise_errors=False)
    for topic in answer["topics"]:
        if topic["error_code"] not in {0, _ALREADY_EXISTS}:  # by somebody else, a moment ago
            raise BusError(f"{topic['name']} cannot be made: {topic['error_message'] or topic['error_code']}")
    admin.wait_for_topics(list(topics), timeout_ms=_READY_MS)


def _found(admin: KafkaAdminClient, names: Mapping[str, object]) -> dict[str, _Topic]:
    """Those of these topics that there are."""
    described = [topic for topic in admin.describe_topics(list(names)) if not topic["error_code"]]
    if not described:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in described]
    settings = admin.describe_configs(resources, config_filter="all")["topic"]
    return {topic["name"]: _as_found(topic, settings[topic["name"]]) for topic in described}


def _as_found(topic: Mapping[str, Any], settings: Mapping[str, Mapping[str, str]]) -> _Topic:
    partitions = topic["partitions"]
    replication = min(len(partition["replica_nodes"]) for partition in partitions)
    return _Topic(len(partitions), replication, {name: each["value"] for name, each in settings.items()})


def _compare(wanted: Mapping[str, _Topic], there: Mapping[str, _Topic]) -> Iterator[str]:
    for name, asked in wanted.items():
        found = there.get(name)
        if found is None:
            yield f"{name} is missing"
            continue
        for what, few, many in (
            ("partitions", found.partitions, asked.partitions),
            ("replicas", found.replication, asked.replication),
        ):
            if few < many:
                yield f"{name} has {few} {what}, not {many}"
        for setting, value in asked.settings.items():
            actual = found.settings.get(setting, "")
            enough = int(actual) >= int(value) if setting in _AT_LEAST and actual else actual == value
            if not enough:
                yield f"{name} has {setting} {actual or 'unset'}, not {value}"
