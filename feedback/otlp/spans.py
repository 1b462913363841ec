"""Spans as they are sent → what they say of a GenAI operation, and which of them belong together."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from feedback.otlp.wire import attributes

EVALUATION: Final = "gen_ai.evaluation.result"
Kind = Literal["agent", "model", "tool"]
Key = tuple[str, str]  # trace and span, in hexadecimal

_KINDS: Final[Mapping[str, Kind]] = {
    "invoke_agent": "agent",
    "chat": "model",
    "generate_content": "model",
    "text_completion": "model",
    "embeddings": "model",
    "execute_tool": "tool",
    "retrieval": "tool",
}
# OpenLLMetry's words, from before the conventions had some.
_OLDER: Final[Mapping[tuple[str, str], str]] = {
    ("llm.request.type", "chat"): "chat",
    ("llm.request.type", "completion"): "text_completion",
    ("llm.request.type", "embedding"): "embeddings",
    ("traceloop.span.kind", "agent"): "invoke_agent",
    ("traceloop.span.kind", "tool"): "execute_tool",
}
_OLDER_NAMES: Final = ("llm.request.type", "traceloop.span.kind")
_MESSAGE = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")


class Span(NamedTuple):
    """One span. `kind` None: of no GenAI operation, and then nothing else of it is read.

    `heard` and `answered` are messages that came as events of the span. `evaluations`: when (Unix time, ns) and what.
    """

    key: Key
    parent: Key
    name: str
    start: int  # Unix time, nanoseconds
    end: int
    kind: Kind | None = None
    operation: str = ""
    error: str | None = None
    service: str = ""
    said: Mapping[str, Any] = {}
    heard: tuple[dict[str, Any], ...] = ()
    answered: tuple[dict[str, Any], ...] = ()
    evaluations: tuple[tuple[int, dict[str, Any]], ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took; 0 where it ended before it began, by a clock that was set."""
        return max(0, self.end - self.start) / 1e9

    @property
    def position(self) -> tuple[int, Key]:
        """Sorts spans by when they began."""
        return self.start, self.key


def read(export: ExportTraceServiceRequest) -> tuple[dict[Key, Span], int]:
    """The spans by their keys, and how many had none. Of two with one key the first counts: the other is the same."""
    spans: dict[Key, Span] = {}
    invalid = 0
    for resource in export.resource_spans:
        service = str(attributes(resource.resource.attributes).get("service.name", ""))
        for scope in resource.scope_spans:
            for span in scope.spans:
                if (
                    len(span.trace_id) == 16
                    and len(span.span_id) == 8
                    and any(span.trace_id)
                    and any(span.span_id)
                ):
                    found = _read(span, service)
                    spans.setdefault(found.key, found)
                else:
                    invalid += 1
    return spans, invalid


def gathered(spans: Mapping[Key, Span]) -> list[tuple[Span, list[Span]]]:
    """Each span that is a request, with those that are its calls, all in the order in which they began."""
    heads: dict[Key, Key | None] = {}
    for key in spans:
        _climb(key, spans, heads)
    parts: dict[Key, list[Span]] = {key: [] for key, head in heads.items() if key == head}
    for span in sorted(spans.values(), key=lambda span: span.position):
        head = heads[span.key]
        if head is not None and head != span.key and span.kind is not None:
            parts[head].append(span)
    return sorted(((spans[key], calls) for key, calls in parts.items()), key=lambda pair: pair[0].position)


def _climb(key: Key, spans: Mapping[Key, Span], heads: dict[Key, Key | None]) -> None:
    """Find the head of a span and of all above it: each is looked at once, however deep the trace."""
    path: dict[Key, None] = {}
    while key in spans and key not in heads and key not in path:  # a circle, too, has an end
        path[key] = None
        key = spans[key].parent
    head = heads.get(key)
    for below in reversed(path):
        kind = spans[below].kind
        if kind == "agent" or (kind is not None and head is None):
            head = below
        heads[below] = head


def _read(span: trace_pb2.Span, service: str) -> Span:
    trace = span.trace_id.hex()
    bare = Span(
        (trace, span.span_id.hex()),
        (trace, span.parent_span_id.hex()),
        span.name.replace("\0", "\ufffd"),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )
    said = attributes(span.attributes)
    operation = _operation(said)
    events = [(event.name, event.time_unix_nano, attributes(event.attributes)) for event in span.events]
    evaluations = tuple((time, what) for name, time, what in events if name == EVALUATION)
    if operation not in _KINDS:
        return bare._replace(evaluations=evaluations)
    heard, answered = list[dict[str, Any]](), list[dict[str, Any]]()
    for name, _, what in events:
        if match := _MESSAGE.fullmatch(name):
            heard.append({"role": match[1], **what})
        elif name == "gen_ai.choice":
            answered.append({"role": "assistant", **what})
        elif name.startswith("gen_ai.") and name != EVALUATION:
            said = {**what, **said}
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return bare._replace(
        kind=_KINDS[operation],
        operation=operation,
        error=(span.status.message.replace("\0", "\ufffd") or str(said.get("error.type", "error")))
        if failed
        else None,
        service=service,
        said=said,
        heard=tuple(heard),
        answered=tuple(answered),
        evaluations=evaluations,
    )


def _operation(said: Mapping[str, Any]) -> str:
    named = said.get("gen_ai.operation.name")
    if named is None:
        older = (_OLDER.get((name, str(said[name]))) for name in _OLDER_NAMES if name in said)
        named = next((name for name in older if name is not None), "")
    return str(named)
