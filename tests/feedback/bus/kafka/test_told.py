"""What an OpenTelemetry Collector puts on its topic is collected like everything else, for the tenant that is set."""

from datetime import UTC, datetime

import kafka.codec
import pytest
from kafka import KafkaProducer
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as g

from feedback import otlp
from feedback.bus.kafka import topics
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import Sender
from feedback.bus.kafka.records import EVENT_TOPICS, Record, topics_collected
from feedback.bus.kafka.replaying import replay
from feedback.bus.kafka.told import Told
from feedback.collector import Collector
from feedback.redaction import RedactionOptions, Redactor
from feedback.store.letters import DeadLetters
from tests.feedback.bus.kafka.conftest import collected, collecting, on_dead_letter_topic
from tests.feedback.otlp.conftest import App


@pytest.fixture
def telling(options):
    return options.model_copy(update={"otlp_tenant": "acme"})


def _put(options, *exports: bytes) -> None:
    sender = Sender(options)
    sender.send([Record(options.topic("otlp"), b"", data, {}) for data in exports])
    sender.close()


def test_nobody_reads_the_topic_unless_it_is_said_whose_it_is():
    options = KafkaOptions(bootstrap_servers=("127.0.0.1:1",))
    assert topics_collected(options) == EVENT_TOPICS
    assert "otlp" in topics_collected(options.model_copy(update={"otlp_tenant": "acme"}))


async def test_spans_and_evaluations_are_stored_once_and_what_is_no_export_is_a_dead_letter(telling, store):
    app = App()
    with (
        app.span("invoke_agent", **{g.GEN_AI_AGENT_NAME: "helper"}),
        app.chat(**{g.GEN_AI_RESPONSE_ID: "r-1"}),
    ):
        app.evaluate(name="tone", score__value=0.5)
    traces, logs = app.traces(), app.logs()
    partly = type(traces).FromString(traces.SerializeToString())
    partly.resource_spans[0].scope_spans[0].spans.add(name="chat")
    exports = [export.SerializeToString() for export in (traces, logs, traces, partly)]
    with collecting(telling, store):
        _put(telling, *exports, b"no export")
        await collected(telling)  # of the topic of exports
        await collected(telling)  # and then of what came of them
    (request,) = store.requests(tenant="acme")
    (wanted,) = otlp.convert(traces, otlp.Source("acme", "otlp", datetime.now(UTC))).events
    assert request == wanted
    (rating,) = store.ratings(tenant="acme")
    assert (rating.name, rating.value, rating.rater) == ("tone", 0.5, "otlp")
    letters = dict(on_dead_letter_topic(telling))
    assert set(letters) == {exports[3], b"no export"}
    assert {headers["topic"] for headers in letters.values()} == {telling.topic("otlp")}


def _export(text: str) -> bytes:
    app = App()
    asked = f'[{{"role": "user", "parts": [{{"type": "text", "content": "{text}"}}]}}]'
    with (
        app.span("invoke_agent", **{g.GEN_AI_AGENT_NAME: "helper"}),
        app.chat(**{g.GEN_AI_RESPONSE_ID: "r-1", g.GEN_AI_INPUT_MESSAGES: asked}),
    ):
        pass
    exported: bytes = app.traces().SerializeToString()
    return exported


async def test_what_a_collector_tells_is_redacted_as_what_comes_by_http_is(telling, store):
    with collecting(telling, store, RedactionOptions(rules=("email",))):
        _put(telling, _export("Write to ada@example.com"))
        await collected(telling)
        await collected(telling)
    (request,) = store.requests(tenant="acme")
    assert "ada@example.com" not in request.model_dump_json()
    assert "[EMAIL]" in request.model_dump_json() and request.redacted == ("email",)


@pytest.mark.parametrize("codec", ["zstd", "snappy"])
async def test_what_others_have_compressed_as_we_cannot_is_read_all_the_same(
    options, store, codec, monkeypatch: pytest.MonkeyPatch
):
    fresh = options.model_copy(update={"otlp_tenant": "acme", "prefix": f"{options.prefix}.{codec}"})
    topics.create(fresh)
    producer = KafkaProducer(bootstrap_servers=fresh.bootstrap_servers, compression_type=codec)
    producer.send(fresh.topic("otlp"), _export(2_000 * "how many claims are open? ")).get(20)
    producer.close()
    monkeypatch.setattr(kafka.codec, "zstd", None)  # as it is where only what we need is installed
    monkeypatch.setattr(kafka.codec, "snappy", None)
    with collecting(fresh, store):
        await collected(fresh)
        await collected(fresh)
    assert len(list(store.requests(tenant="acme"))) == 1


async def test_a_dead_export_is_listed_and_becomes_events_when_it_can_be_read(
    telling, store, monkeypatch: pytest.MonkeyPatch
):
    export = _export("Write to ada@example.com")
    with monkeypatch.context() as today, collecting(telling, store):
        today.setattr(otlp, "either", _not_yet)
        _put(telling, export)
        await collected(telling)
    (letter,) = DeadLetters(store).all()
    assert letter.reason == "no such export yet" and DeadLetters(store).data(letter) == export
    told = Told("acme", store, Redactor(RedactionOptions(rules=("email",))))
    replay(telling, Collector(store), topics=("dead-letter",))
    assert not list(store.requests(tenant="acme"))  # nobody reads exports
    for _ in range(2):
        replay(telling, Collector(store), topics=("dead-letter",), told=told)
        (request,) = store.requests(tenant="acme")
    assert "[EMAIL]" in request.model_dump_json()


def _not_yet(_: bytes) -> None:
    raise otlp.OtlpError("no such export yet")
