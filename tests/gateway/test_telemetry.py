"""Every request becomes spans by the GenAI conventions, and costs and betrays nothing where that was not asked for."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from agents.manifest import Agent
from feedback.delivery import Here
from feedback.events import Message, ToolCall, span_id
from gateway.config import TelemetryOptions
from gateway.telemetry import AgentOutcome, ModelOutcome, Telemetry, content
from tests.contracts.samples import EPOCH, model_call, rating, request
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, TEXT, World, until
from tests.gateway.fake_vllm import BASE, answer_of
from tests.gateway.otlp import CLIENT, ERROR, INTERNAL, Receiver, Span

CHAT = "/v1/chat/completions"
GOOD = {"model": AGENT, "messages": QUESTION}
TRACE, CALLER = "ab" * 16, "cd" * 8
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
ANSWER = "".join(answer_of(BASE))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().served() as running:
        yield running


def to(receiver: Receiver, **options: Any) -> TelemetryOptions:
    return TelemetryOptions(otlp_endpoint=receiver.url, **options)


def by_operation(spans: list[Span]) -> dict[str, Span]:
    """The spans of one request, at most one of each operation."""
    found = {span.attributes["gen_ai.operation.name"]: span for span in spans}
    assert len(found) == len(spans)
    return found


async def test_a_request_to_an_agent_is_a_span_with_a_span_for_each_of_its_parts(world: World, receiver):
    async with world.running(telemetry=to(receiver)):
        body = {**GOOD, "temperature": 0.5, "seed": 7, "max_tokens": 20, "stop": ["\n"]}
        headers = {**SAMPLED, "x-episode-id": "case-7"}
        answered = await world.http().post(CHAT, json=body, headers=headers)
    spans = by_operation(receiver.spans)
    assert spans.keys() == {"invoke_agent", "retrieval", "chat"}
    whole, retrieval, chat = spans["invoke_agent"], spans["retrieval"], spans["chat"]

    assert {span.trace_id for span in receiver.spans} == {TRACE}
    assert whole.parent_id == CALLER
    assert whole.span_id == answered.headers["traceparent"].split("-")[2]
    assert retrieval.parent_id == chat.parent_id == whole.span_id
    assert world.vllm.headers[-1]["traceparent"] == f"00-{TRACE}-{chat.span_id}-01"
    assert whole.contains(retrieval) and whole.contains(chat) and retrieval.end <= chat.start

    assert (whole.name, whole.kind, whole.status) == (f"invoke_agent {AGENT}", INTERNAL, 0)
    tokens = len(answer_of(BASE))
    common = {
        "gen_ai.conversation.id": "case-7",
        "gen_ai.output.type": "json",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.stop_sequences": ["\n"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.model": BASE_POLICY,
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": tokens,
        "gen_ai.provider.name": "vllm",
    }
    description = Agent.load(world.config.agents[0]).description
    assert whole.attributes == {
        **common,
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": AGENT,
        "gen_ai.agent.name": AGENT,
        "gen_ai.agent.description": description,
        "gen_ai.request.model": AGENT,
        "gen_ai.response.id": answered.json()["id"],
    }
    assert whole.resource["service.name"] == "flywheel-gateway"
    assert UUID(whole.resource["service.instance.id"])  # each process has its own

    assert (chat.name, chat.kind, chat.status) == (f"chat {BASE}", CLIENT, 0)
    first = chat.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first <= (chat.end - chat.start) / 1e9
    assert chat.attributes == {
        **common,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": BASE,
        "gen_ai.request.stream": True,
    }

    source = (await world.recorded(answered.json()["id"])).calls[0]
    assert isinstance(source, ToolCall)
    assert retrieval.kind == CLIENT
    assert retrieval.name == f"retrieval {source.arguments['knowledge']}"
    assert retrieval.attributes == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.conversation.id": "case-7",
        "gen_ai.data_source.id": source.arguments["knowledge"],
    }


async def test_spans_last_as_long_as_what_they_stand_for(world: World, receiver):
    world.vllm.seconds_per_chunk = 0.03
    async with world.running(telemetry=to(receiver)):
        asked = time.time_ns()
        await world.http().post(CHAT, json=GOOD)
        answered = time.time_ns()
    spans = by_operation(receiver.spans)
    assert asked <= spans["invoke_agent"].start <= spans["invoke_agent"].end <= answered
    generated = spans["chat"].end - spans["chat"].start
    assert generated >= 0.03e9 * len(answer_of(BASE))
    assert generated <= spans["invoke_agent"].end - spans["invoke_agent"].start


async def test_nobody_s_words_leave_unless_that_is_opted_in(world: World, receiver):
    async with world.running(telemetry=to(receiver)):
        answered = await world.http().post(CHAT, json=GOOD)
        rated = {"request_id": answered.json()["id"], "value": True, "comment": "as in the report"}
        assert (await world.http().post("/v1/feedback", json=rated)).status_code == 200
    sent = b"".join(receiver.bodies)
    for secret in (TEXT, ANSWER, "claims(claim_id", "as in the report", world.keys["ann"], '"ann"'):
        assert secret.encode() not in sent
    assert receiver.spans and receiver.events


async def test_content_that_is_opted_in_has_the_form_of_the_conventions(world: World, receiver):
    async with world.running(telemetry=to(receiver, content=True)):
        answered = await world.http().post(CHAT, json=GOOD)
        rated = {"request_id": answered.json()["id"], "value": True, "comment": "as in the report"}
        await world.http().post("/v1/feedback", json=rated)
    spans = by_operation(receiver.spans)
    asked = {"role": "user", "parts": [{"type": "text", "content": TEXT}]}
    said = {"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}
    for operation in ("invoke_agent", "chat"):
        attributes = spans[operation].attributes
        assert json.loads(attributes["gen_ai.input.messages"])[-1] == asked
        assert json.loads(attributes["gen_ai.output.messages"]) == [said]
    (system, _) = json.loads(spans["chat"].attributes["gen_ai.input.messages"])
    assert system["role"] == "system" and "claims(claim_id" in system["parts"][0]["content"]
    assert spans["retrieval"].attributes["gen_ai.retrieval.query.text"] == TEXT
    assert receiver.events[0].attributes["gen_ai.evaluation.explanation"] == "as in the report"


async def test_what_is_too_long_for_a_span_is_replaced_by_valid_json(receiver):
    telemetry = Telemetry(to(receiver, content=True))
    async with telemetry.exporting():
        for length in (10_000, 20_000):
            body = {"messages": [{"role": "user", "content": "x" * length}]}
            telemetry.model_finished(telemetry.begin("r1", []), plain(), body)
    fits, cut = (json.loads(span.attributes["gen_ai.input.messages"]) for span in receiver.spans)
    assert fits == [{"role": "user", "parts": [{"type": "text", "content": "x" * 10_000}]}]
    assert cut == "20056 characters: more than a span carries"


@pytest.mark.parametrize(("value", "attributes"), [(True, ("true", 1.0)), (False, ("false", 0.0))])
async def test_a_rating_is_an_event_on_the_rated_span(world: World, receiver, value, attributes):
    async with world.running(telemetry=to(receiver)):
        answered = await world.http().post(CHAT, json=GOOD)
        request_id = answered.json()["id"]
        body = {"request_id": request_id, "value": value}
        assert (await world.http("bob").post("/v1/feedback", json=body)).status_code == 200
    (event,) = receiver.events
    whole = by_operation(receiver.spans)["invoke_agent"]
    assert (event.trace_id, event.span_id) == (whole.trace_id, whole.span_id)
    label, score = attributes
    assert event.name == "gen_ai.evaluation.result"
    assert event.attributes == {
        "gen_ai.evaluation.name": "correct",
        "gen_ai.evaluation.score.label": label,
        "gen_ai.evaluation.score.value": score,
        "gen_ai.response.id": request_id,
    }


async def test_a_rating_finds_its_span_after_a_restart(world: World, receiver):
    async with world.running(telemetry=to(receiver)):
        answered = await world.http().post(CHAT, json=GOOD)
    await world.recorded(answered.json()["id"])
    async with world.running(telemetry=to(receiver)):
        body = {"request_id": answered.json()["id"], "value": False}
        assert (await world.http().post("/v1/feedback", json=body)).status_code == 200
    whole = by_operation(receiver.spans)["invoke_agent"]
    assert [(event.trace_id, event.span_id) for event in receiver.events] == [(whole.trace_id, whole.span_id)]


async def test_a_failed_generation_has_a_failed_span_from_when_it_began(world: World, receiver):
    world.vllm.break_after = 2
    async with world.running(telemetry=to(receiver)):
        assert (await world.http().post(CHAT, json=GOOD)).status_code == 503
    spans = by_operation(receiver.spans)
    assert spans.keys() == {"invoke_agent", "retrieval", "chat"}
    for operation in ("invoke_agent", "chat"):
        assert spans[operation].status == ERROR
        assert spans[operation].attributes["error.type"] == "upstream_unavailable"
    assert spans["invoke_agent"].contains(spans["chat"])
    assert spans["retrieval"].end <= spans["chat"].start
    assert spans["retrieval"].status == 0


async def test_a_client_that_leaves_is_told_apart(world: World, receiver):
    world.vllm.seconds_per_chunk = 0.3
    async with world.running(telemetry=to(receiver)):
        asking = asyncio.create_task(world.http().post(CHAT, json=GOOD))
        await until(lambda: world.vllm.running)
        asking.cancel()
        await until(lambda: world.vllm.aborted)
    spans = by_operation(receiver.spans)
    assert spans["invoke_agent"].attributes["error.type"] == "cancelled"
    assert spans["chat"].attributes["error.type"] == "cancelled"
    assert spans["invoke_agent"].contains(spans["chat"])


async def test_an_answer_that_cannot_be_recorded_is_a_failed_span(world: World, receiver):
    async with world.running(telemetry=to(receiver)):
        assert world.gateway is not None
        assert isinstance(world.gateway.delivery, Here)
        await asyncio.to_thread(world.gateway.delivery.close)
        assert (await world.http().post(CHAT, json=GOOD)).status_code == 503
    assert by_operation(receiver.spans)["invoke_agent"].attributes["error.type"] == "storage_full"


async def test_a_callers_trace_that_is_not_sampled_is_not_exported(world: World, receiver):
    async with world.running(telemetry=to(receiver)):
        unsampled = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
        assert (await world.http().post(CHAT, json=GOOD, headers=unsampled)).status_code == 200
        assert world.vllm.headers[-1]["traceparent"].endswith("-00")
        kept = await world.http().post(CHAT, json=GOOD)
    assert {span.trace_id for span in receiver.spans} == {kept.headers["traceparent"].split("-")[1]}


async def test_without_an_endpoint_nothing_is_exported_and_new_traces_say_so(live: World):
    answered = await live.http().post(CHAT, json=GOOD)
    assert answered.headers["traceparent"].endswith("-00")


async def test_the_standard_variables_are_honoured(world: World, receiver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front-door")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with world.running():
        await world.http().post(CHAT, json=GOOD)
    resource = receiver.spans[0].resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("front-door", "test")
    seen = len(receiver.bodies)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with world.running():
        await world.http().post(CHAT, json=GOOD)
    assert len(receiver.bodies) == seen


async def test_a_collector_that_hangs_or_is_away_delays_neither_answers_nor_the_shutdown(
    world: World, receiver, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
):
    receiver.delay = 60
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")  # longer than a shutdown waits
    for url in (receiver.url, f"http://127.0.0.1:{unused_tcp_port}"):
        started = time.monotonic()
        async with world.running(telemetry=TelemetryOptions(otlp_endpoint=url)):
            for _ in range(3):
                assert (await world.http().post(CHAT, json=GOOD)).status_code == 200
        assert time.monotonic() - started < 15  # it would be 60 and more
        # What was left behind ends by itself; the next test must not find its connection.
        await until(lambda: not any(thread.name.startswith("Otel") for thread in threading.enumerate()))


async def test_the_queue_is_bounded_and_keeps_the_newest(receiver):
    receiver.delay = 0.3
    telemetry = Telemetry(to(receiver, queue=512))
    async with telemetry.exporting():
        for number in range(3_000):
            trace = telemetry.begin(f"r{number}", [])
            telemetry.model_finished(trace, plain(request_id=f"r{number}"), {})
    kept = {span.attributes["gen_ai.response.id"] for span in receiver.spans}
    assert 512 <= len(kept) < 3_000
    assert "r2999" in kept


async def test_a_request_to_a_plain_model_is_one_span(receiver):
    telemetry = Telemetry(to(receiver, content=True))
    body = {"temperature": 0.2, "n": 2, "max_completion_tokens": 9, "stream": True, "messages": QUESTION}
    async with telemetry.exporting():
        trace = telemetry.begin("r1", [(b"traceparent", SAMPLED["traceparent"].encode())])
        telemetry.enter("m")
        telemetry.model_finished(trace, plain(), body, ["one", "two"])
        telemetry.leave("m")
    (span,) = receiver.spans
    assert (span.name, span.kind, span.trace_id, span.parent_id) == ("chat m", CLIENT, TRACE, CALLER)
    assert span.span_id == span_id("r1")
    assert (span.start, span.end - span.start) == (1_700_000_000_000_000_000, 500_000_000)
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.conversation.id": "e1",
        "gen_ai.input.messages": content.messages([Message(role="user", content=TEXT)]),
        "gen_ai.output.messages": content.answers([("one", "stop"), ("two", "length")]),
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.response.id": "r1",
        "gen_ai.response.model": "m@1",
        "gen_ai.response.time_to_first_chunk": 0.1,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
    }


def test_messages_of_the_openai_api_are_told_in_the_form_of_the_conventions():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    told = content.chat(
        [
            {"role": "user", "content": [{"type": "text", "text": "look"}, picture]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]
    )
    assert json.loads(told) == [
        {"role": "user", "parts": [{"type": "text", "content": "look"}, {"type": "image_url"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "42"}]},
    ]


async def test_a_rating_of_a_request_without_a_trace_is_told_by_the_requests_id(receiver):
    telemetry = Telemetry(to(receiver))
    async with telemetry.exporting():
        telemetry.rated(None, AGENT, rating(value="mostly"))
        telemetry.rated(None, AGENT, rating(value=0.5))
    label, score = receiver.events
    assert (label.trace_id, label.span_id) == ("", "")
    assert label.attributes["gen_ai.response.id"] == "r1"
    assert label.attributes["gen_ai.evaluation.score.label"] == "mostly"
    assert "gen_ai.evaluation.score.value" not in label.attributes
    assert score.attributes["gen_ai.evaluation.score.value"] == 0.5
    assert "gen_ai.evaluation.score.label" not in score.attributes


@pytest.mark.parametrize("opted_in", [True, False])
async def test_a_tool_that_an_agent_runs_is_a_span(world: World, receiver, opted_in):
    began = EPOCH + timedelta(seconds=1)
    tools = [
        ToolCall(name="sql", arguments={"query": "SELECT 1"}, result=[[1]], started=began, latency=0.5),
        ToolCall(name="sql", arguments={"query": "SELEC"}, error="no", started=began, latency=0.1),
    ]
    event = request(calls=(tools[0], model_call(started=began), tools[1]), time=EPOCH + timedelta(seconds=3))
    telemetry = Telemetry(to(receiver, content=opted_in))
    outcome = AgentOutcome(event, AGENT, BASE, started_ns=round(EPOCH.timestamp() * 1e9), seconds=3.0)
    async with telemetry.exporting():
        trace = telemetry.begin("r1", [])
        telemetry.agent_finished(trace, Agent.load(world.config.agents[0]), outcome)
    good, bad = (span for span in receiver.spans if span.name == "execute_tool sql")
    (whole,) = (span for span in receiver.spans if span.name.startswith("invoke_agent"))
    assert good.kind == INTERNAL and good.parent_id == bad.parent_id == whole.span_id
    assert good.span_id != bad.span_id
    assert good.start == round(began.timestamp() * 1e9) and good.end - good.start == 500_000_000
    assert good.attributes["gen_ai.tool.name"] == "sql"
    assert (good.status, bad.status, bad.attributes["error.type"]) == (0, ERROR, "tool_error")
    written = {"gen_ai.tool.call.arguments": '{"query":"SELECT 1"}', "gen_ai.tool.call.result": "[[1]]"}
    assert {k: v for k, v in good.attributes.items() if "tool.call" in k} == (written if opted_in else {})


async def test_a_defect_in_telemetry_does_not_spoil_an_answer(
    world: World, receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with world.running(telemetry=to(receiver)):
        assert world.gateway is not None
        monkeypatch.setattr(world.gateway.telemetry._spans, "agent", fail)
        monkeypatch.setattr(world.gateway.telemetry._spans, "rating", fail)
        answered = await world.http().post(CHAT, json=GOOD)
        assert answered.status_code == 200
        body = {"request_id": answered.json()["id"], "value": True}
        assert (await world.http().post("/v1/feedback", json=body)).status_code == 200
    assert caplog.text.count("a defect in telemetry") == 2


def plain(request_id: str = "r1") -> ModelOutcome:
    return ModelOutcome(
        request_id=request_id,
        episode_id="e1",
        operation="chat",
        model="m",
        policy="m@1",
        status="completed",
        started_ns=1_700_000_000 * 10**9,
        seconds=0.5,
        upstream_seconds=0.4,
        first_token_seconds=0.1,
        input_tokens=3,
        output_tokens=4,
        finish_reasons=("stop", "length"),
    )
