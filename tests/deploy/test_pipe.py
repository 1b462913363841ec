"""The way of events from the operator's side, on a real broker and a real PostgreSQL."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as g
from sqlalchemy import create_engine, text

from deploy import pipe
from deploy.finding import Finding
from deploy.keys import operator_key
from deploy.settings import Settings
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import KafkaBus
from feedback.store import DeadLetter, Store
from gateway.scopes import SCOPES
from tests.contracts.samples import rating, request
from tests.deploy.conftest import free_port
from tests.feedback.otlp.conftest import App


def options_of(settings: Settings) -> KafkaOptions:
    assert settings.kafka is not None
    return settings.kafka


def publish(settings: Settings, bodies: Sequence[bytes]) -> None:
    async def run() -> None:
        bus = KafkaBus(options_of(settings))
        try:
            await bus.publish(bodies)
        finally:
            await bus.close()

    asyncio.run(run())


def as_json(*events: Any) -> list[bytes]:
    return [event.model_dump_json().encode() for event in events]


def newer(request_id: str) -> bytes:
    """An event of a version that this code does not know."""
    event = json.loads(request(request_id).model_dump_json())
    return json.dumps({**event, "schema_version": 99, "output": {"kind": "of a later version"}}).encode()


def broken(findings: Sequence[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.verdict == "broken"]


def with_letters(settings: Settings, *data: bytes) -> None:
    store = Store.open(settings.feedback.store_url)
    store.write([], [DeadLetter(each, "it was no event then") for each in data])
    store.close()


def test_topics_are_made_once_and_a_topic_that_differs_is_named_and_left_alone(run: Any, piped: Settings):
    prefix = options_of(piped).prefix
    first = run("kafka", "init")
    assert first.code == 0
    assert f"{prefix}.requests" in first.out
    assert run("kafka", "init").out == "0 topics made; all are as asked for\n"
    file = piped.root / "flywheel.toml"
    file.write_text(file.read_text().replace("partitions = 2", "partitions = 3"))
    other = run("kafka", "init")
    assert other.code == 1
    assert f"{prefix}.requests has 2 partitions, not 3" in other.out


def test_the_status_shows_topics_and_what_waits_on_them(run: Any, piped: Settings):
    run("kafka", "init")
    publish(piped, as_json(request("r1"), request("r2"), rating("r1")))
    result = run("kafka", "status")
    assert result.err == ""
    told = result.out
    assert f"brokers     {options_of(piped).bootstrap_servers[0]}" in told
    assert "collectors  0" in told
    rows = [line.replace("│", " ").split() for line in told.splitlines() if "│" in line]
    waiting = {topic.rpartition(".")[2]: lag for topic, *_, lag in rows}
    assert (waiting["requests"], waiting["ratings"], waiting["policies"]) == ("2", "1", "0")


def test_the_doctor_says_what_is_missing_on_the_way(piped: Settings, run: Any):
    assert broken(list(pipe.store(piped))) == []
    assert "is missing" in broken(list(pipe.kafka(piped)))[0]
    run("kafka", "init")
    publish(piped, as_json(request("r1")))
    assert broken(list(pipe.kafka(piped))) == [
        f"nobody collects in the group {options_of(piped).group}, and 1 records wait"
    ]


def test_a_broker_and_a_database_that_are_away_are_named_without_the_password(settings: Settings):
    nowhere = free_port()
    kafka = KafkaOptions(bootstrap_servers=(f"127.0.0.1:{nowhere}",))
    url = f"postgresql://ann:s3cret@127.0.0.1:{nowhere}/flywheel"
    feedback = settings.feedback.model_copy(update={"store_url": url})
    away = settings.model_copy(update={"kafka": kafka, "feedback": feedback})
    [store] = pipe.store(away)
    [broker] = pipe.kafka(away)
    assert store.verdict == broker.verdict == "broken"
    assert str(nowhere) in broker.what
    assert f"ann:***@127.0.0.1:{nowhere}" in store.what
    assert "s3cret" not in str((store, broker))


@pytest.mark.parametrize("command", [("keys", "list"), ("dead-letters", "list"), ("curate",)])
def test_a_database_that_is_away_is_one_line_without_the_password(
    run: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
):
    from domains.insurance import database

    settings.var.mkdir()
    database.build(settings.sql.databases[0], 7)
    url = f"postgresql://ann:s3cret@127.0.0.1:{free_port()}/flywheel"
    monkeypatch.setenv("FLYWHEEL_FEEDBACK__STORE_URL", url)
    result = run(*command)
    assert result.code == 1
    assert result.err.startswith("flywheel: the store does not open: ")
    assert result.err.count("\n") == 1
    assert "s3cret" not in result.err


def test_keys_live_in_postgresql(run: Any, piped: Settings):
    secret = operator_key(piped)
    assert run("keys", "create", "ada").out.startswith("fw-")
    assert operator_key(piped) == secret
    told = run("keys", "list").out
    assert "ada" in told and "operator" in told
    engine = create_engine(piped.feedback.store_url)
    with engine.connect() as connection:
        scopes = connection.execute(text("SELECT scopes FROM api_keys WHERE owner = 'operator'")).scalar_one()
    engine.dispose()
    assert set(scopes.split()) == set(SCOPES)


def letter_ids(told: str) -> list[str]:
    return [line.split()[1] for line in told.splitlines() if line.startswith("│")]


def test_a_dead_letter_is_listed_with_its_reason_and_shown_byte_by_byte(
    run: Any, settings: Settings, root: Path
):
    data = b"\xff\x00\x1b[31m no event"
    with_letters(settings, data)
    told = run("dead-letters", "list").out
    assert "it was no event then" in told
    command = (sys.executable, "-c", "from deploy.cli import main; main()")
    words = ("--config", str(settings.root / "flywheel.toml"), "dead-letters", "show", *letter_ids(told))
    shown = subprocess.run((*command, *words), cwd=root, capture_output=True, check=True)
    assert shown.stdout == data
    assert b"it was no event then" in shown.stderr


def test_what_is_an_event_by_now_is_one_again_and_the_rest_stays(run: Any, settings: Settings):
    with_letters(settings, *as_json(request("r1")), b"rubbish")
    result = run("dead-letters", "replay", "--all")
    assert result.code == 0
    assert "1 sent again, 1 stay" in result.out
    store = Store.open(settings.feedback.store_url)
    assert store.request("r1", "default") is not None
    assert [letter.data for letter in store.dead_letters()] == [b"rubbish"]
    store.close()


def test_with_kafka_a_dead_letter_travels_through_its_topic_again(run: Any, piped: Settings):
    run("kafka", "init")
    with_letters(piped, *as_json(request("r1")))
    [letter_id] = letter_ids(run("dead-letters", "list").out)
    assert "1 sent again, 0 stay" in run("dead-letters", "replay", letter_id[:6]).out
    store = Store.open(piped.feedback.store_url)
    assert (
        store.counts()["dead_letters"] == store.counts()["requests"] == 0
    )  # on its topic: nobody collects here
    store.close()
    assert "1 requests" in run("replay", "--from", "beginning").out


def test_with_kafka_a_dead_export_of_opentelemetry_becomes_events_redacted_like_all_others(
    run: Any, piped: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLYWHEEL_KAFKA__OTLP_TENANT", "acme")
    monkeypatch.setenv("FLYWHEEL_REDACTION__RULES", '["email"]')
    run("kafka", "init")
    app = App()
    asked = '[{"role": "user", "parts": [{"type": "text", "content": "Write to ada@example.com"}]}]'
    with app.span("invoke_agent"), app.chat(**{g.GEN_AI_INPUT_MESSAGES: asked}):
        pass
    with_letters(piped, app.traces().SerializeToString(), b"rubbish")
    assert "1 sent again, 1 stay" in run("dead-letters", "replay", "--all").out
    assert "1 requests" in run("replay", "--from", "beginning").out
    store = Store.open(piped.feedback.store_url)
    (told,) = store.requests(tenant="acme")
    store.close()
    assert "[EMAIL]" in told.model_dump_json() and "ada@example.com" not in told.model_dump_json()


def test_a_letter_stays_when_the_bus_does_not_take_it(
    run: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    with_letters(settings, *as_json(request("r1")))
    monkeypatch.setenv("FLYWHEEL_KAFKA__BOOTSTRAP_SERVERS", json.dumps([f"127.0.0.1:{free_port()}"]))
    result = run("dead-letters", "replay", "--all")
    assert result.code == 1
    assert "stays a dead letter" in result.err
    store = Store.open(settings.feedback.store_url)
    assert store.counts()["dead_letters"] == 1
    store.close()


@pytest.mark.parametrize("words", [(), ("abc", "--all")])
def test_it_must_be_said_which_letters_are_meant(run: Any, words: tuple[str, ...]):
    result = run("dead-letters", "replay", *words)
    assert result.code == 1
    assert "by their ids, or --all" in result.err


def test_an_id_of_no_letter_or_of_several_is_refused(run: Any, settings: Settings):
    with_letters(settings, b"one", b"two")
    assert "no dead letter begins with 'zz'" in run("dead-letters", "show", "zz").err
    assert "2 dead letters begin with ''" in run("dead-letters", "show", "").err


def test_a_store_is_rebuilt_from_the_topics_from_a_time_on(run: Any, piped: Settings):
    run("kafka", "init")
    publish(piped, [*as_json(request("r1"), rating("r1")), newer("r2")])
    copy = f"sqlite:///{piped.root}/copy.db"
    told = run("replay", "--from", "beginning", "--to", copy)
    assert told.code == 0
    assert "1 requests, 1 ratings" in told.out
    assert "1 dead letters" in told.out
    assert "1 requests, 1 ratings" in run("replay", "--from", "beginning", "--to", copy).out
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    none = run("replay", "--from", later, "--to", f"sqlite:///{piped.root}/other.db")
    assert "0 requests, 0 ratings" in none.out


def test_a_time_that_is_none_and_a_machine_without_kafka_are_refused(run: Any, settings: Settings):
    assert "no Kafka is set" in run("replay", "--from", "beginning").err
    assert "no Kafka is set" in run("kafka", "init").err


def test_a_time_that_cannot_be_read_is_refused(run: Any, piped: Settings):
    assert "write a time like" in run("replay", "--from", "noon").err
