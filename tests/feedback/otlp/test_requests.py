"""Spans become requests: what is one, what is in it, and what nobody can make of them."""

import json
from datetime import UTC, datetime

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as g

from feedback import otlp
from feedback.events import ExternalCall, Message, RequestFinished, ToolCall, new_id, parse
from feedback.policies import is_base
from tests.feedback.otlp.conftest import ANSWERED, ASKED, SOURCE, App, told

QUESTION = (Message(role="user", content="How many claims are open?"),)


def _only(app) -> RequestFinished:
    (event,) = told(app)
    assert isinstance(event, RequestFinished)
    return event


def test_an_agent_with_its_calls_is_one_request(app):
    with app.span(
        "invoke_agent", **{g.GEN_AI_AGENT_NAME: "helper", g.GEN_AI_CONVERSATION_ID: "case-7"}
    ) as agent:
        with (
            app.span(None),
            app.chat(**{g.GEN_AI_RESPONSE_ID: "chatcmpl-1", g.GEN_AI_USAGE_INPUT_TOKENS: 12}),
        ):
            pass  # within a span of HTTP, as instrumentations of clients have it
        arguments, result = {"sql": "SELECT 1"}, [[1]]
        with app.span(
            "execute_tool",
            **{
                g.GEN_AI_TOOL_NAME: "query",
                g.GEN_AI_TOOL_CALL_ARGUMENTS: json.dumps(arguments),
                g.GEN_AI_TOOL_CALL_RESULT: json.dumps(result),
            },
        ):
            pass
        with app.span(
            "retrieval", **{g.GEN_AI_RETRIEVAL_QUERY_TEXT: "claims", g.GEN_AI_DATA_SOURCE_ID: "wiki"}
        ):
            pass
    event = _only(app)
    assert (event.origin, event.tenant, event.caller, event.agent) == ("otlp", "acme", "app-key", "helper")
    assert (event.episode_id, event.status, event.policy) == ("case-7", "completed", "helper@otlp:gpt-large")
    assert event.trace_id == f"{agent.get_span_context().trace_id:032x}"
    assert event.span_id == f"{agent.get_span_context().span_id:016x}"
    assert event.input == QUESTION and event.output == "42"
    chat, tool, retrieval = event.calls
    assert isinstance(chat, ExternalCall) and isinstance(tool, ToolCall) and isinstance(retrieval, ToolCall)
    assert chat.response["id"] == "chatcmpl-1" and chat.response["usage"]["prompt_tokens"] == 12
    assert chat.finish_reason == "stop" and chat.request["messages"][0]["content"] == QUESTION[0].text
    assert (tool.name, tool.arguments, tool.result) == ("query", arguments, result)
    assert (retrieval.name, retrieval.arguments) == ("retrieval", {"query": "claims", "data_source": "wiki"})
    assert tool.started is not None and tool.started <= event.time
    assert parse(event.model_dump_json()) == event


def test_a_model_call_outside_an_agent_is_a_request_of_its_own_by_the_name_of_its_service(app):
    with app.chat(**{g.GEN_AI_RESPONSE_ID: "chatcmpl-AbC", "gen_ai.usage.cost": 0.25}) as span:
        pass
    event = _only(app)
    assert (event.request_id, event.agent) == ("chatcmpl-AbC", "claims-app")
    assert event.episode_id == f"{span.get_span_context().trace_id:032x}"
    assert event.cost == 0.25
    assert [call.kind for call in event.calls] == ["external"]


@pytest.mark.parametrize(
    ("operation", "kept"), [("text_completion", "text_completion"), ("generate_content", "chat")]
)
def test_operations_have_our_names(app, operation, kept):
    with app.span(operation):
        pass
    assert _only(app).operation == kept


def test_an_agent_within_an_agent_is_a_request_of_the_same_episode(app):
    with app.span("invoke_agent", **{g.GEN_AI_AGENT_NAME: "outer", g.GEN_AI_CONVERSATION_ID: "c"}):
        with app.span("invoke_agent", **{g.GEN_AI_AGENT_NAME: "inner"}), app.chat():
            pass
        with app.chat():
            pass
    outer, inner = told(app)
    assert [(event.agent, len(event.calls), event.episode_id) for event in (outer, inner)] == [
        ("outer", 1, "c"),
        ("inner", 1, "c"),
    ]


def test_what_comes_before_its_agent_stands_for_itself_and_nothing_is_lost(app):
    with app.span("invoke_agent", **{g.GEN_AI_AGENT_NAME: "helper"}):
        with app.chat():
            pass
        with app.span("execute_tool", **{g.GEN_AI_TOOL_NAME: "query"}):
            pass
        first = told(app)
    second = told(app)
    assert [[call.kind for call in event.calls] for event in (*first, *second)] == [
        ["external"],
        ["tool"],
        [],
    ]
    assert len({event.episode_id for event in (*first, *second)}) == 1
    assert len({event.event_id for event in (*first, *second)}) == 3


def test_the_same_span_is_the_same_event_in_its_tenant_alone(app):
    with app.chat():
        pass
    export = app.traces()
    again = [otlp.convert(export, SOURCE).events[0].event_id for _ in range(2)]
    elsewhere = otlp.convert(export, SOURCE._replace(tenant="other")).events[0].event_id
    assert again[0] == again[1] != elsewhere


def test_spans_of_other_kinds_are_ignored(app):
    with app.span(None), app.span("create_agent"):
        pass
    assert told(app) == []


def test_a_failed_span_is_a_failed_request_with_its_reason(app):
    with app.span("invoke_agent", error="the model is overloaded"), app.chat():
        pass
    event = _only(app)
    assert (event.status, event.error) == ("failed", "the model is overloaded")


def test_what_an_agent_says_itself_goes_before_what_its_calls_say(app):
    asked = [{"role": "user", "parts": [{"type": "text", "content": "And since May?"}]}]
    instructions = [{"type": "text", "content": "Be brief."}]
    with (
        app.span(
            "invoke_agent",
            **{
                g.GEN_AI_INPUT_MESSAGES: json.dumps(asked),
                g.GEN_AI_SYSTEM_INSTRUCTIONS: json.dumps(instructions),
            },
        ),
        app.chat(),
    ):
        pass
    event = _only(app)
    assert event.input == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="And since May?"),
    )
    assert event.output == "42"


@pytest.mark.parametrize("prefix", ["chatcmpl-", "resp_", "cmpl-", "embd-", "otlp-"])
def test_an_id_that_this_gateway_could_have_given_is_never_taken_from_outside(app, prefix):
    theirs = new_id(prefix)
    with app.chat(**{g.GEN_AI_RESPONSE_ID: theirs}):
        pass
    assert _only(app).request_id == f"otlp-{theirs}"


def test_no_name_makes_it_a_policy_of_this_gateway(app):
    for agent, model in (("sql-analyst@base-b0", "x"), ("a" * 300, "y@base-b0")):
        with app.chat(**{g.GEN_AI_AGENT_NAME: agent, g.GEN_AI_RESPONSE_MODEL: model}):
            pass
        policy = _only(app).policy
        assert "@otlp:" in policy and not is_base(policy) and policy.count("@") == 1


def test_nothing_is_later_than_when_it_came_or_it_would_outlive_its_erasure(app):
    with app.chat():
        pass
    came = datetime(2001, 1, 1, tzinfo=UTC)
    assert otlp.convert(app.traces(), SOURCE._replace(received=came)).events[0].time == came


def test_unknown_attributes_are_kept(app):
    with (
        app.span("invoke_agent", **{"app.customer": "vip"}),
        app.chat(**{"app.attempt": 2, "gen_ai.request.seed": 7}),
    ):
        pass
    event = _only(app)
    assert event.metadata["app.customer"] == "vip"
    (call,) = event.calls
    assert isinstance(call, ExternalCall) and call.request["seed"] == 7
    assert call.request["attributes"]["app.attempt"] == 2


def test_a_span_without_ids_is_rejected_and_the_others_are_taken(app):
    with app.chat():
        pass
    export = app.traces()
    export.resource_spans[0].scope_spans[0].spans.add(name="chat")
    taken = otlp.convert(export, SOURCE)
    assert (len(taken.events), taken.rejected) == (1, 1) and "trace id" in taken.reasons[0]


def test_spans_that_are_each_others_parents_and_chains_of_any_depth_come_to_an_end():
    export = ExportTraceServiceRequest()
    spans = export.resource_spans.add().scope_spans.add().spans
    for number in range(5_000):
        span = spans.add(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8), name="chat")
        span.parent_span_id = ((number + 1) % 5_000 + 1).to_bytes(8)
        span.attributes.add(key="gen_ai.operation.name").value.string_value = "chat"
    taken = otlp.convert(export, SOURCE)
    assert sum(len(event.calls) for event in taken.events if isinstance(event, RequestFinished)) == 5_000


def test_the_flat_attributes_of_openllmetry_are_read(app):
    with (
        app.span(None, **{"traceloop.span.kind": "agent", "traceloop.entity.name": "helper"}),
        app.span(
            None,
            **{
                "llm.request.type": "chat",
                "gen_ai.system": "OpenAI",
                "gen_ai.request.model": "gpt-large",
                "gen_ai.prompt.0.role": "system",
                "gen_ai.prompt.0.content": "Be brief.",
                "gen_ai.prompt.1.role": "user",
                "gen_ai.prompt.1.content": "How many claims are open?",
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "I look.",
                "gen_ai.completion.0.finish_reason": "tool_calls",
                "gen_ai.completion.0.tool_calls.0.id": "call-1",
                "gen_ai.completion.0.tool_calls.0.name": "query",
                "gen_ai.completion.0.tool_calls.0.arguments": '{"sql": "SELECT 1"}',
                "gen_ai.usage.prompt_tokens": 5,
            },
        ),
    ):
        pass
    event = _only(app)
    (call,) = event.calls
    assert event.agent == "helper"
    assert event.input == (Message(role="system", content="Be brief."), *QUESTION)
    assert event.output == "I look."
    assert isinstance(call, ExternalCall) and call.finish_reason == "tool_calls"
    (made,) = call.response["choices"][0]["message"]["tool_calls"]
    assert made == {
        "id": "call-1",
        "type": "function",
        "function": {"name": "query", "arguments": '{"sql": "SELECT 1"}'},
    }
    assert call.response["usage"]["prompt_tokens"] == 5


def test_messages_that_came_as_events_of_the_span_are_read(app):
    with app.span("chat") as span:
        span.add_event("gen_ai.user.message", {"content": "How many claims are open?"})
        span.add_event("gen_ai.choice", {"content": "42", "finish_reason": "stop"})
    with app.span("chat") as span:
        details = {g.GEN_AI_INPUT_MESSAGES: json.dumps(ASKED), g.GEN_AI_OUTPUT_MESSAGES: json.dumps(ANSWERED)}
        span.add_event("gen_ai.client.inference.operation.details", details)
    for event in told(app):
        assert isinstance(event, RequestFinished)
        assert (event.input, event.output) == (QUESTION, "42")


def test_messages_in_structured_attributes_are_read_as_those_in_json():
    app = App()
    with app.chat():
        pass
    export = app.traces()
    (span,) = export.resource_spans[0].scope_spans[0].spans
    (given,) = [item for item in span.attributes if item.key == g.GEN_AI_INPUT_MESSAGES]
    message = given.value.array_value.values.add().kvlist_value
    message.values.add(key="role").value.string_value = "user"
    part = message.values.add(key="parts").value.array_value.values.add().kvlist_value
    part.values.add(key="type").value.string_value = "text"
    part.values.add(key="content").value.string_value = "How many claims are open?"
    event = otlp.convert(export, SOURCE).events[0]
    assert isinstance(event, RequestFinished) and event.input == QUESTION
