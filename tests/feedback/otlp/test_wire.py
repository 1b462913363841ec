"""OTLP's encodings: both say the same, and no bytes do more than be refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from feedback import otlp
from feedback.events import parse
from feedback.otlp.wire import value
from tests.feedback.otlp.conftest import SOURCE, App
from tests.gateway.otlp import document

_KINDS: st.SearchStrategy[Any] = st.sampled_from((ExportTraceServiceRequest, ExportLogsServiceRequest))


def _exports():
    app = App()
    with app.span("invoke_agent"), app.chat():
        app.evaluate(name="tone", score__value=0.5)
    return app.traces(), app.logs()


def test_json_and_protobuf_say_the_same():
    for export in _exports():
        text = json.dumps(document(export)).encode()
        assert otlp.from_json(text, type(export)) == export
        assert otlp.from_protobuf(export.SerializeToString(), type(export)) == export


def test_what_a_topic_holds_is_told_apart_by_its_bytes():
    for export in _exports():
        assert otlp.either(export.SerializeToString()) == export
    metrics = ExportMetricsServiceRequest()
    metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="gen_ai.client.token.usage", unit="1")
    for data in (b"", metrics.SerializeToString(), b"{}", b"\xff" * 20):
        with pytest.raises(otlp.OtlpError):
            otlp.either(data)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"resourceSpans": 5}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 5}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "\\ud800"}]}]}]}',
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_export_is_refused(text):
    with pytest.raises(otlp.OtlpError):
        otlp.from_json(text, ExportTraceServiceRequest)


def test_unknown_fields_are_ignored_as_the_specification_asks():
    text = b'{"resourceSpans": [], "later": 1}'
    assert otlp.from_json(text, ExportTraceServiceRequest) == ExportTraceServiceRequest()


def test_values_are_what_json_and_databases_can_hold():
    assert value(AnyValue(double_value=float("nan"))) == "nan"
    assert value(AnyValue(bytes_value=b"\0\1")) == "AAE="
    assert value(AnyValue(string_value="a\0b")) == "a\ufffdb"
    assert value(AnyValue()) is None


@given(data=st.binary(max_size=200), kind=_KINDS)
def test_no_bytes_do_more_than_be_refused(data, kind):
    for read in (
        lambda: otlp.from_protobuf(data, kind),
        lambda: otlp.from_json(data, kind),
        lambda: otlp.either(data),
    ):
        try:
            export = read()
        except otlp.OtlpError:
            continue
        otlp.convert(export, SOURCE)


_TEXT = st.sampled_from(
    ["", "a", "text", "type", "role", "content", "tool_call", "tool", "[1", "{}", "\0", "é"]
)
_FLAT = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | _TEXT
_LISTED = st.lists(_FLAT, max_size=3) | st.dictionaries(_TEXT, _FLAT, max_size=3)
_JSON = _FLAT | _LISTED | st.lists(_LISTED, max_size=3) | st.dictionaries(_TEXT, _LISTED, max_size=3)
_NAMES = st.sampled_from(
    """gen_ai.input.messages gen_ai.output.messages gen_ai.system_instructions gen_ai.response.id gen_ai.agent.name
    gen_ai.conversation.id gen_ai.response.finish_reasons gen_ai.usage.input_tokens gen_ai.tool.call.arguments
    gen_ai.tool.call.result gen_ai.tool.definitions gen_ai.request.model gen_ai.request.messages gen_ai.usage.cost
    gen_ai.prompt.0.content gen_ai.prompt.0.tool_calls.0.name gen_ai.prompt.0.tool_calls gen_ai.completion.1.role
    gen_ai.response.time_to_first_chunk gen_ai.evaluation.name gen_ai.evaluation.score.value""".split()
)


@settings(max_examples=100, deadline=None)
@given(
    operation=st.sampled_from(["chat", "invoke_agent", "execute_tool", "retrieval"]),
    said=st.dictionaries(_NAMES, _JSON | _JSON.map(json.dumps), max_size=6),
    messages=st.lists(
        st.fixed_dictionaries(
            {}, optional={"role": _JSON, "parts": _JSON, "content": _JSON, "tool_calls": _JSON}
        ),
        max_size=3,
    ),
)
def test_whatever_attributes_hold_an_event_comes_of_it_that_can_be_written_and_read(
    operation, said, messages
):
    export = ExportTraceServiceRequest()
    span = export.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    given_ = {"gen_ai.input.messages": json.dumps(messages), **said, "gen_ai.operation.name": operation}
    for name, inner in given_.items():
        _fill(span.attributes.add(key=name).value, inner)
    evaluation = span.events.add(name="gen_ai.evaluation.result")
    for name, inner in said.items():
        _fill(evaluation.attributes.add(key=name).value, inner)
    taken = otlp.convert(export, SOURCE)
    assert taken.rejected == 0
    for event in taken.events:
        assert parse(event.model_dump_json()) == event


def _fill(target, inner):
    if isinstance(inner, bool):
        target.bool_value = inner
    elif isinstance(inner, int):
        target.int_value = inner
    elif isinstance(inner, float):
        target.double_value = inner
    elif isinstance(inner, str):
        target.string_value = inner
    elif isinstance(inner, list):
        target.array_value.SetInParent()
        for item in inner:
            _fill(target.array_value.values.add(), item)
    elif isinstance(inner, dict):
        target.kvlist_value.SetInParent()
        for name, item in inner.items():
            _fill(target.kvlist_value.values.add(key=name).value, item)
