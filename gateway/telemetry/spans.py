"""Spans by OpenTelemetry's semantic conventions for GenAI, made when a request is over, from what was recorded of it.

https://github.com/open-telemetry/semantic-conventions-genai (status: development; as of late 2026). The request to an
agent is `invoke_agent`, and its parts are `retrieval`, `execute_tool` and `chat`; the request to a plain model is one
`chat`. A rating is the event `gen_ai.evaluation.result` of the span that it is about. `error.type` is one of the codes
that clients get, or `cancelled`.

Afterwards and from the record, because then the loop need not know of tracing, the record and the trace cannot differ,
and a request costs nothing until it is answered.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from opentelemetry.trace import SpanKind

from agents.manifest import Agent
from feedback.events import ModelCall, Rating, RequestFinished, Sampling, ToolCall
from gateway.telemetry import content
from gateway.telemetry.export import Attributes, Exporter
from gateway.telemetry.outcome import AgentOutcome, ModelOutcome, operation
from gateway.trace import Trace, request_trace

_PROVIDER = "vllm"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REQUESTED: Mapping[str, str] = {  # fields of a request's body that the conventions know
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "n": "choice.count",
    "stream": "stream",
}


class Spans:
    """Makes spans of requests that are over. With `content`, spans hold what was written and answered."""

    def __init__(self, exporter: Exporter, *, content: bool) -> None:
        self._exporter = exporter
        self._content = content

    def agent(self, trace: Trace, agent: Agent, outcome: AgentOutcome) -> None:
        """A request to an agent, and all that was done for it."""
        event = outcome.event
        generations = [call for call in event.calls if isinstance(call, ModelCall)]
        attributes: Attributes = {
            **_common("invoke_agent", event.episode_id),
            "gen_ai.agent.id": agent.name,
            "gen_ai.agent.name": agent.name,
            "gen_ai.agent.description": agent.description,
            "gen_ai.request.model": outcome.model,
            "gen_ai.response.id": event.request_id,
            "gen_ai.response.model": event.policy,
            "gen_ai.output.type": "json",
            "gen_ai.usage.input_tokens": sum(len(call.prompt_token_ids) for call in generations),
            "gen_ai.usage.output_tokens": sum(len(call.completion_token_ids) for call in generations),
        }
        if generations:
            attributes |= _sampling(generations[-1].sampling)
            attributes["gen_ai.response.finish_reasons"] = [generations[-1].finish_reason]
        if self._content:
            attributes["gen_ai.input.messages"] = content.messages(event.input)
            if event.output is not None:
                reason = generations[-1].finish_reason if generations else event.status
                attributes["gen_ai.output.messages"] = content.answers([(event.output, reason)])
        self._exporter.span(
            trace,
            f"invoke_agent {agent.name}",
            SpanKind.INTERNAL,
            start=outcome.started_ns,
            end=outcome.ended_ns,
            attributes=attributes,
            error=outcome.error,
            remote_parent=True,
        )
        self._parts(trace, event, outcome)

    def model(
        self, trace: Trace, outcome: ModelOutcome, parameters: Mapping[str, Any], answers: Sequence[str]
    ) -> None:
        """A request to a plain model: `parameters` is its body, `answers` the texts that came back."""
        attributes: Attributes = {
            **_common(outcome.operation, outcome.episode_id),
            "gen_ai.provider.name": outcome.provider,
            "gen_ai.request.model": outcome.model,
            "gen_ai.response.id": outcome.request_id,
            "gen_ai.response.model": outcome.policy,
            "gen_ai.usage.input_tokens": outcome.input_tokens,
            "gen_ai.usage.output_tokens": outcome.output_tokens,
        }
        for name, meaning in _REQUESTED.items():
            if isinstance(value := parameters.get(name), bool | int | float):
                attributes[f"gen_ai.request.{meaning}"] = value
        if outcome.finish_reasons:
            attributes["gen_ai.response.finish_reasons"] = list(outcome.finish_reasons)
        if outcome.first_token_seconds is not None and parameters.get("stream"):
            attributes["gen_ai.response.time_to_first_chunk"] = outcome.first_token_seconds
        if self._content:
            if "messages" in parameters:
                attributes["gen_ai.input.messages"] = content.chat(parameters["messages"])
            if answers:
                reasons = zip_longest(answers, outcome.finish_reasons[: len(answers)], fillvalue="")
                attributes["gen_ai.output.messages"] = content.answers(reasons)
        self._exporter.span(
            trace,
            f"{outcome.operation} {outcome.model}",
            SpanKind.CLIENT,
            start=outcome.started_ns,
            end=outcome.ended_ns,
            attributes=attributes,
            error=outcome.error,
            remote_parent=True,
        )

    def rating(self, trace: Trace | None, rating: Rating) -> None:
        """The event of a rating, on the span of the request that it is about. Who rated is not told.

        `trace` None: of that request nothing is known but its id.
        """
        attributes: Attributes = {
            "gen_ai.evaluation.name": rating.name,
            "gen_ai.response.id": rating.request_id or "",
        }
        if isinstance(rating.value, bool | str):
            attributes["gen_ai.evaluation.score.label"] = str(rating.value).lower()
        if isinstance(rating.value, bool | int | float):
            attributes["gen_ai.evaluation.score.value"] = float(rating.value)
        if self._content and rating.comment:
            attributes["gen_ai.evaluation.explanation"] = rating.comment
        self._exporter.event(trace, "gen_ai.evaluation.result", _unix_ns(rating.time), attributes)

    def _parts(self, trace: Trace, event: RequestFinished, outcome: AgentOutcome) -> None:
        generated = 0
        for number, call in enumerate(outcome.calls):
            if isinstance(call, ModelCall):
                self._generation(call_trace(trace, generated), event, outcome.served_name, call)
                generated += 1
            else:
                self._tool(_tool_trace(trace, number), event, call)
        for number in range(generated, len(outcome.model_calls_ns)):  # begun, and never finished
            self._exporter.span(
                call_trace(trace, number),
                f"chat {outcome.served_name}",
                SpanKind.CLIENT,
                start=outcome.model_calls_ns[number],
                end=outcome.ended_ns,
                attributes={
                    **_common("chat", event.episode_id),
                    "gen_ai.request.model": outcome.served_name,
                },
                error=outcome.error or "_OTHER",
            )

    def _generation(self, trace: Trace, event: RequestFinished, served_name: str, call: ModelCall) -> None:
        attributes: Attributes = {
            **_common("chat", event.episode_id),
            **_sampling(call.sampling),
            "gen_ai.request.model": served_name,
            "gen_ai.request.stream": True,
            "gen_ai.output.type": "text" if call.response_schema is None else "json",
            "gen_ai.response.model": call.policy,
            "gen_ai.response.finish_reasons": [call.finish_reason],
            "gen_ai.response.time_to_first_chunk": call.time_to_first_token,
            "gen_ai.usage.input_tokens": len(call.prompt_token_ids),
            "gen_ai.usage.output_tokens": len(call.completion_token_ids),
        }
        if self._content:
            attributes["gen_ai.input.messages"] = content.messages(call.messages)
            attributes["gen_ai.output.messages"] = content.generated(call)
        self._exporter.span(
            trace,
            f"chat {served_name}",
            SpanKind.CLIENT,
            start=(start := _began(call, event)),
            end=start + round(call.latency * 1e9),
            attributes=attributes,
        )

    def _tool(self, trace: Trace, event: RequestFinished, call: ToolCall) -> None:
        done = operation(call)
        attributes = _common(done, event.episode_id)
        if done == "retrieval":
            name = f"retrieval {call.arguments['knowledge']}"
            attributes["gen_ai.data_source.id"] = call.arguments["knowledge"]
            if self._content:
                attributes["gen_ai.retrieval.query.text"] = call.arguments["query"]
        else:
            name = f"execute_tool {call.name}"
            attributes["gen_ai.tool.name"] = call.name
            attributes["gen_ai.tool.type"] = "extension"  # the conventions' word for: run by the agent's side
            if self._content:
                attributes["gen_ai.tool.call.arguments"] = content.as_json(call.arguments)
                attributes["gen_ai.tool.call.result"] = content.as_json(call.result)
        self._exporter.span(
            trace,
            name,
            SpanKind.CLIENT if done == "retrieval" else SpanKind.INTERNAL,
            start=(start := _began(call, event)),
            end=start + round(call.latency * 1e9),
            attributes=attributes,
            error=None if call.error is None else "tool_error",
        )


def call_trace(trace: Trace, number: int) -> Trace:
    """The span of a request's model call: known when the call goes out, so that the model server continues it."""
    return trace.child(f"chat {number}")


def call_spans(event: RequestFinished) -> list[str]:
    """The span ids of an agent's calls, in their order."""
    trace, generated = request_trace(event.trace_id or "", event.request_id), 0
    spans = []
    for number, call in enumerate(event.calls):
        if isinstance(call, ModelCall):
            spans.append(call_trace(trace, generated).span_id)
            generated += 1
        else:
            spans.append(_tool_trace(trace, number).span_id)
    return spans


def _tool_trace(trace: Trace, number: int) -> Trace:
    return trace.child(f"tool {number}")


def _common(name: str, episode_id: str) -> Attributes:
    attributes: Attributes = {"gen_ai.operation.name": name, "gen_ai.conversation.id": episode_id}
    if name not in ("retrieval", "execute_tool"):  # no model has a part in these
        attributes["gen_ai.provider.name"] = _PROVIDER
    return attributes


def _began(call: ModelCall | ToolCall, event: RequestFinished) -> int:
    """Unix time in ns; of records from before there was `started`, all that is known is that it was before the end."""
    return _unix_ns(call.started or event.time - timedelta(seconds=call.latency))


def _unix_ns(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1) * 1_000


def _sampling(sampling: Sampling) -> Attributes:
    attributes: Attributes = {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.max_tokens": sampling.max_tokens,
    }
    if sampling.seed is not None:
        attributes["gen_ai.request.seed"] = sampling.seed
    if sampling.stop:
        attributes["gen_ai.request.stop_sequences"] = list(sampling.stop)
    return attributes
