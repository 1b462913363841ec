"""What an OpenTelemetry Collector puts on its topic is collected like everything else, for the tenant that is set."""

from datetime import UTC, datetime

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as g

from feedback import otlp
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import Sender
from feedback.bus.kafka.records import EVENT_TOPICS, Record, topics_collected
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
