"""Spans that belong together → one `RequestFinished`, as if it had been made here; but without token ids."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from feedback.events import SPAN_ID, Message, Rating, RequestFinished, ToolCall
from feedback.otlp.calls import ENTITY, Generation, Said, generation, tool_call
from feedback.otlp.evaluations import evaluation
from feedback.otlp.source import Converted, Source, foreign, short
from feedback.otlp.spans import Key, Span, gathered, read
from feedback.otlp.wire import text
from feedback.policies import told_policy

_OPERATIONS: Final[Mapping[str, Literal["text_completion", "embeddings"]]] = {
    "text_completion": "text_completion",
    "embeddings": "embeddings",
}
_CONVERSATION = ("gen_ai.conversation.id", "session.id")
_COST = "gen_ai.usage.cost"  # US dollars; of no convention, but widely written


def requests(export: ExportTraceServiceRequest, source: Source) -> Converted:
    """The requests in an export of spans, and the ratings that came as events of spans."""
    spans, invalid = read(export)
    reasons = ["a span without a trace id of 16 bytes and a span id of 8"] if invalid else []
    conversations = _conversations(spans.values())
    events: list[RequestFinished | Rating] = []
    places: dict[Key, tuple[RequestFinished, int | None]] = {}
    for head, below in gathered(spans):
        try:
            event = _request(head, below, source, conversations.get(head.key[0]))
        except ValidationError as error:
            invalid += 1 + len(below)
            reasons.append(f"a span {head.operation}: {error.errors()[0]['msg']}")
            continue
        events.append(event)
        first = len(event.calls) - len(below)
        places |= {span.key: (event, number) for number, span in enumerate(below, first)}
        places[head.key] = event, None
    for span in spans.values():
        for time, said in span.evaluations:
            found = evaluation(said, time, span.key, source, *places.get(span.key, (None, None)))
            if isinstance(found, Rating):
                events.append(found)
            else:
                reasons.append(found)  # none is counted as rejected: the span itself has been taken
    return Converted(tuple(events), invalid, tuple(reasons))


def _request(head: Span, below: list[Span], source: Source, conversation: str | None) -> RequestFinished:
    trace, span = head.key
    event_id = source.id_of(trace, span)
    said = Said(head)
    done = [_done(part) for part in (below if head.kind == "agent" else [head, *below])]
    generations = [one for one in done if isinstance(one, Generation)]
    if head.kind == "agent":
        model, heard, answered = _agent(said, generations)
    else:
        model, heard, answered = _first(generations[:1])
    response_id = "" if head.kind == "tool" else said.text("gen_ai.response.id")
    name = said.text("gen_ai.agent.name", "gen_ai.agent.id", *([ENTITY] if head.kind == "agent" else []))
    agent = short(name or head.service or "unknown")
    return RequestFinished(
        origin="otlp",
        event_id=event_id,
        time=source.time(head.end),
        tenant=source.tenant,
        operation=_OPERATIONS.get(head.operation, "chat"),
        request_id=foreign(response_id) if response_id else event_id,
        episode_id=short(_conversation(head) or conversation or trace),
        trace_id=trace,
        agent=agent,
        policy=short(told_policy(short(agent, 90), model or "unknown")),
        caller=source.caller,
        input=heard,
        output=answered[0].text if answered else None,
        status="completed" if head.error is None else "failed",
        error=head.error,
        calls=tuple(one.call if isinstance(one, Generation) else one for one in done),
        cost=_cost(head, below),
        metadata=_metadata(head, said),
        latency=head.seconds,
    )


def _done(span: Span) -> Generation | ToolCall:
    return tool_call(span) if span.kind == "tool" else generation(span)


_Exchange = tuple[str, tuple[Message, ...], tuple[Message, ...]]  # the model, what it heard, what it answered


def _first(generations: Iterable[Generation]) -> _Exchange:
    for one in generations:
        return one.call.provider_model, one.heard, one.answered
    return "", (), ()


def _agent(said: Said, generations: list[Generation]) -> _Exchange:
    """What an agent says itself, else what its first model call heard and its last one answered."""
    _, heard, _ = _first(generations)
    model, _, answered = _first(one for one in reversed(generations) if one.answered or one is generations[0])
    own_model = said.text("gen_ai.response.model", "gen_ai.request.model")
    return own_model or model, said.heard() or heard, said.answered()[0] or answered


def _cost(head: Span, below: Iterable[Span]) -> float | None:
    own = Said(head).number(_COST)
    if own is not None:
        return own
    costs = [cost for span in below if (cost := Said(span).number(_COST)) is not None]
    return sum(costs) if costs else None


def _metadata(head: Span, said: Said) -> dict[str, str]:
    """Where it came from, and what else an agent's span told. Of other spans that is in their call."""
    rest = {name: text(value) for name, value in said.rest.items()} if head.kind == "agent" else {}
    told = {"otel.span.name": head.name, SPAN_ID: head.key[1], "service.name": head.service}
    return {**rest, **{name: value for name, value in told.items() if value}}


def _conversations(spans: Iterable[Span]) -> dict[str, str]:
    """The conversation of each trace: where one span says so, it holds for those that do not."""
    found: dict[str, str] = {}
    for span in sorted(spans, key=lambda span: span.position):
        if named := _conversation(span):
            found.setdefault(span.key[0], named)
    return found


def _conversation(span: Span) -> str:
    return next((text(span.said[name]) for name in _CONVERSATION if span.said.get(name)), "")
