import pytest
from kafka import KafkaAdminClient

from feedback.bus.base import BusError
from feedback.bus.kafka import topics
from feedback.bus.kafka.options import KafkaOptions


def changed(options, **fields):
    return KafkaOptions.model_validate(options.model_dump() | fields)


def test_topics_are_made_once(options):
    fresh = changed(options, prefix=options.prefix + "x")
    assert topics.differences(fresh)[0] == f"{fresh.prefix}.requests is missing"
    assert topics.create(fresh) == [
        f"{fresh.prefix}.{name}"
        for name in ("requests", "ratings", "policies", "erasures", "dead-letter", "otlp")
    ]
    assert topics.create(fresh) == []
    assert topics.differences(fresh) == []


def test_what_must_not_be_split_or_forgotten_has_one_partition_and_no_end(options):
    admin = KafkaAdminClient(bootstrap_servers=options.bootstrap_servers)
    found = topics._found(admin, topics._wanted(options))
    admin.close()
    assert {name.rpartition(".")[2]: topic.partitions for name, topic in found.items()} == {
        "requests": 3,
        "ratings": 3,
        "otlp": 3,
        "policies": 1,
        "erasures": 1,
        "dead-letter": 1,
    }
    assert found[options.topic("policies")].settings["retention.ms"] == "-1"
    assert found[options.topic("requests")].settings["retention.ms"] == str(30 * 24 * 3600 * 1000)


def test_less_than_asked_for_is_refused_and_said_and_more_is_taken(options):
    with pytest.raises(BusError, match="requests has 3 partitions, not 4"):
        topics.create(changed(options, partitions=4))
    assert topics.create(changed(options, partitions=2)) == []
    more = changed(options, replication=2, min_insync_replicas=2, retention_days=7)
    found = "; ".join(topics.differences(more))
    assert "policies has 1 replicas, not 2" in found
    assert "policies has min.insync.replicas 1, not 2" in found
    assert "ratings has retention.ms 2592000000, not 604800000" in found
    assert "policies has retention" not in found


def test_a_cluster_that_cannot_hold_the_replicas_says_so(options):
    with pytest.raises(BusError, match="cannot be made"):
        topics.create(changed(options, prefix=options.prefix + "x", replication=3))


def test_a_cluster_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr("feedback.bus.kafka.clients._BOOTSTRAP_MS", 300)
    with pytest.raises(BusError, match=r"Kafka at 127\.0\.0\.1:1:"):
        topics.create(KafkaOptions(bootstrap_servers=("127.0.0.1:1",)))
