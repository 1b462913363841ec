"""Phoenix's API for annotations: its client annotates here when it is given this address and a key of ours."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from gateway.description import BASIC, OPEN, asks, errors_as, takes
from gateway.errors import in_shape
from gateway.feedback_shapes.phoenix import (
    AnnotateQuery,
    AnnotateSessions,
    AnnotateSpans,
    AnnotateTraces,
    inserted,
    refusal,
)
from gateway.state import gateway_of
from gateway.wire import read, read_query

router = APIRouter(tags=["feedback of other products' clients"])

# The version in which annotations of sessions came: clients look for it before they annotate one.
_VERSION = "12.0.0"

Annotations = AnnotateSpans | AnnotateTraces | AnnotateSessions


def _described(kind: type[Annotations]) -> dict[str, Any]:
    return {"responses": errors_as(None), "openapi_extra": takes(kind) | asks(AnnotateQuery) | BASIC}


@router.post("/v1/span_annotations", **_described(AnnotateSpans))
async def annotate_spans(request: Request) -> Response:
    """Rate requests by their spans, as Phoenix's client does. All are taken, or none."""
    return await in_shape(_annotate(request, AnnotateSpans), refusal)


@router.post("/v1/trace_annotations", **_described(AnnotateTraces))
async def annotate_traces(request: Request) -> Response:
    """Rate the last requests of traces, as Phoenix's client does. All are taken, or none."""
    return await in_shape(_annotate(request, AnnotateTraces), refusal)


@router.post("/v1/session_annotations", **_described(AnnotateSessions))
async def annotate_sessions(request: Request) -> Response:
    """Rate episodes, as Phoenix's client does. All are taken, or none."""
    return await in_shape(_annotate(request, AnnotateSessions), refusal)


@router.get("/arize_phoenix_version", response_class=PlainTextResponse, openapi_extra=OPEN)
async def phoenix_version() -> str:
    """The version of Phoenix whose annotations are taken here."""
    return _VERSION


async def _annotate(request: Request, kind: type[Annotations]) -> Response:
    gateway = gateway_of(request)
    caller = await gateway.auth.require_of_any(request, "rate")
    await gateway.limits.admit_told(caller)
    read_query(request, AnnotateQuery)
    body = await read(request, kind, gateway.config.max_body_bytes, gateway.config.bounds)
    weighed = [await gateway.rater.weigh(caller, annotation.opinion()) for annotation in body.data]
    await gateway.rater.record(weighed)
    return inserted([one.rating.event_id for one in weighed])
