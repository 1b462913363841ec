"""How far the collectors are behind."""

from kafka import KafkaAdminClient, OffsetSpec, TopicPartition

from feedback.bus.kafka.clients import as_bus_error, opened
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.records import topics_collected


def lag(options: KafkaOptions) -> dict[str, int]:
    """Records that the group has not collected yet, by the topic's name. Blocks; raises `BusError`."""
    with as_bus_error(options):
        admin = opened(KafkaAdminClient, options)
        try:
            return _lag(admin, options)
        finally:
            admin.close()


def _lag(admin: KafkaAdminClient, options: KafkaOptions) -> dict[str, int]:
    names = [options.topic(topic) for topic in topics_collected(options)]
    parts = [
        TopicPartition(topic["name"], part["partition_index"])
        for topic in admin.describe_topics(names)
        for part in topic["partitions"]
    ]
    begins = admin.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.EARLIEST))
    ends = admin.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.LATEST))
    committed = admin.list_group_offsets({options.group: parts})[options.group]
    behind = dict.fromkeys(names, 0)
    for part in parts:
        place = max(committed[part].offset if part in committed else -1, begins[part].offset)
        behind[part.topic] += max(0, ends[part].offset - place)
    return behind
