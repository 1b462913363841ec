"""Kafka and PostgreSQL as parts of one machine's Flywheel: which of them, where, and who else knows."""

import asyncio
import os

import pytest
import typer

from deploy import broker, local, postgres
from deploy.commands import settings_of
from deploy.errors import FlywheelError
from deploy.settings import Settings
from feedback.bus.kafka.options import KafkaOptions


@pytest.fixture(autouse=True)
def _no_broker_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)


def kafka_at(settings: Settings, server: str) -> Settings:
    return settings.model_copy(update={"kafka": KafkaOptions(bootstrap_servers=(server,), prefix="ours")})


def test_where_nothing_is_named_both_are_this_machines(settings: Settings):
    both = local.with_services(settings)
    assert both.kafka == KafkaOptions(bootstrap_servers=(f"127.0.0.1:{broker.PORT}",))
    assert both.feedback.store_url == postgres.url(settings.var / "postgres")
    assert local.with_services(both) == both


def test_what_the_settings_name_is_used_and_not_started(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    feedback = settings.feedback.model_copy(update={"store_url": "postgresql://db/flywheel"})
    theirs = kafka_at(settings, "kafka:9092").model_copy(update={"feedback": feedback})
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "one:9092, two:9092")
    with_both = local.with_services(theirs)
    assert with_both.feedback == feedback
    assert with_both.kafka is not None
    assert (with_both.kafka.bootstrap_servers, with_both.kafka.prefix) == (("one:9092", "two:9092"), "ours")
    assert local.programs(with_both) == []


def test_a_broker_of_another_machine_is_not_started_here(settings: Settings):
    with pytest.raises(
        FlywheelError, match="kafka:9092, which is not of this machine: start without --kafka"
    ):
        local.programs(local.with_services(kafka_at(settings, "kafka:9092")))


async def test_a_port_that_is_taken_is_named_with_its_holder(settings: Settings):
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(
            FlywheelError, match=rf"port {port} .*process {os.getpid()}.*KAFKA_BOOTSTRAP_SERVERS"
        ):
            local.programs(local.with_services(kafka_at(settings, f"127.0.0.1:{port}")))


def test_other_commands_use_what_the_last_up_used(settings: Settings):
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    context.obj = settings.root / "flywheel.toml"
    assert settings_of(context) == settings
    local.choose(settings, local=True)
    assert settings_of(context) == local.with_services(settings)
    local.choose(settings, local=False)
    assert settings_of(context) == settings
