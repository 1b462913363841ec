"""A broker of this machine's own: found or explained, ready when it can be used, and still knowing what it was told."""

from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from deploy import broker
from deploy.errors import FlywheelError


def test_the_broker_takes_topics_as_soon_as_it_is_ready(kafka_broker: str):
    with KafkaAdminClient(bootstrap_servers=kafka_broker) as admin:
        admin.create_topics([NewTopic("made-by-test-broker", 2, 1)])
        assert "made-by-test-broker" in admin.list_topics()


def test_without_a_broker_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FlywheelError, match=r"KAFKA_BOOTSTRAP_SERVERS.*KAFKA_HOME.*Docker"):
        broker.program(tmp_path / "kafka", 9092, logs=tmp_path)


def test_a_folder_without_kafka_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(FlywheelError, match=f"KAFKA_HOME={tmp_path} holds no Kafka"):
        broker.program(tmp_path / "kafka", 9092, logs=tmp_path)
