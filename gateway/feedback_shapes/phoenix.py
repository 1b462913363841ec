"""Phoenix's annotations, https://arize.com/docs/phoenix/sdk-api-reference/rest-api: of spans, traces and sessions.

The identifier tells apart who annotates: the same one's later annotation supersedes. A session is an episode. What is
said beside the value that the metric takes (a label beside a score) is kept as a tag.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from starlette.responses import JSONResponse, PlainTextResponse

from gateway.errors import ApiError
from gateway.opinion import About, Opinion, as_tags, readings
from gateway.wire import Body

_MOST = 500
_KINDS: Mapping[str, Literal["human", "model", "code"]] = {"HUMAN": "human", "LLM": "model", "CODE": "code"}


class AnnotationResult(Body):
    """What is thought of it, in words, as a number, and why."""

    label: str | None = Field(None, max_length=20_000)
    score: float | None = None
    explanation: str | None = Field(None, max_length=20_000)


class Annotation(Body):
    """What annotations of everything have in common."""

    name: str = Field(min_length=1, max_length=200)
    annotator_kind: Literal["LLM", "CODE", "HUMAN"]
    result: AnnotationResult | None = None
    metadata: dict[str, Any] | None = None
    identifier: str | None = Field("", max_length=200)

    def about(self) -> About:
        """What it annotates."""
        raise NotImplementedError

    def opinion(self) -> Opinion:
        """What it says."""
        result = self.result or AnnotationResult()
        return Opinion(
            self.about(),
            name=self.name,
            values=readings(result.score, result.label),
            comment=result.explanation,
            tags=as_tags(label=result.label, score=result.score, metadata=self.metadata),
            source="phoenix",
            rater=self.identifier or None,
            rater_kind=_KINDS[self.annotator_kind],
        )


class SpanAnnotation(Annotation):
    """Of a span: of a request."""

    span_id: str = Field(min_length=1, max_length=200)

    def about(self) -> About:
        """The request that the span is of."""
        return About(span=self.span_id, param="span_id")


class TraceAnnotation(Annotation):
    """Of a trace: of its last request."""

    trace_id: str = Field(min_length=1, max_length=200)

    def about(self) -> About:
        """The request."""
        return About(trace=self.trace_id, param="trace_id")


class SessionAnnotation(Annotation):
    """Of a session: of an episode."""

    session_id: str = Field(min_length=1, max_length=200)

    def about(self) -> About:
        """The episode."""
        return About(episode_id=self.session_id, param="session_id")


class AnnotateSpans(Body):
    """The body of `POST /v1/span_annotations`."""

    data: list[SpanAnnotation] = Field(max_length=_MOST)


class AnnotateTraces(Body):
    """The body of `POST /v1/trace_annotations`."""

    data: list[TraceAnnotation] = Field(max_length=_MOST)


class AnnotateSessions(Body):
    """The body of `POST /v1/session_annotations`."""

    data: list[SessionAnnotation] = Field(max_length=_MOST)


class AnnotateQuery(Body):
    """The query of all three. They always answer when all is recorded: there is nothing more to wait for."""

    sync: bool = False


def inserted(ids: Sequence[str]) -> JSONResponse:
    """The answer to annotations that have been recorded."""
    return JSONResponse({"data": [{"id": name} for name in ids]})


def refusal(error: ApiError) -> PlainTextResponse:
    """An error as Phoenix answers it: its clients show the status, people read the text."""
    return PlainTextResponse(error.message, error.status, error.all_headers())
