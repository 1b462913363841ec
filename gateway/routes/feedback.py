"""Ratings: what people think of an answer, by the id that they got with it."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, field_validator
from starlette.responses import JSONResponse, Response

from feedback.events import Rating
from feedback.store import Key
from gateway.description import asks, takes
from gateway.openai_chat import Metadata
from gateway.rating import checked_rating, recorded_request
from gateway.state import Gateway, gateway_of
from gateway.wire import Body, parse, read_body, read_query

router = APIRouter(tags=["feedback"])

_Short = Annotated[str, Field(min_length=1, max_length=200)]


class FeedbackRequest(Body):
    """The body of `POST /v1/feedback`."""

    request_id: _Short
    name: _Short = "correct"
    value: bool | float | str
    correction: dict[str, Any] | None = None
    comment: str | None = Field(None, max_length=20_000)
    tags: Metadata | None = None
    source: _Short = "api"

    @field_validator("value", mode="plain", json_schema_input_type=bool | float | str)
    @classmethod
    def _scalar(cls, value: Any) -> bool | float | str:
        if isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            return float(value)
        raise ValueError("expected true or false, a number or text")


class FeedbackQuery(Body):
    """The query of `GET /v1/feedback`."""

    request_id: _Short


@router.post("/v1/feedback", openapi_extra=takes(FeedbackRequest))
async def create_feedback(request: Request) -> Response:
    """Rate a request. A later rating by the same person on the same metric supersedes it."""
    gateway = gateway_of(request)
    rater = await gateway.auth.require(request, "rate")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, FeedbackRequest, gateway.config.bounds)
    return await gateway.idempotency.once(request, rater, data, lambda: _rate(gateway, rater, body))


async def _rate(gateway: Gateway, rater: Key, body: FeedbackRequest) -> Response:
    rated = await recorded_request(gateway.recorder, gateway.records, body.request_id, rater.tenant)
    rating = Rating(
        tenant=rater.tenant,
        rater=rater.owner,
        source=body.source,
        request_id=body.request_id,
        episode_id=rated.episode_id,
        name=body.name,
        value=body.value,
        correction=body.correction,
        comment=body.comment,
        tags=body.tags or {},
    )
    await gateway.recorder.rating(checked_rating(rating, gateway.agents.get(rated.agent)))
    gateway.telemetry.rated(rated.trace_id, rated.agent, rating)
    return JSONResponse({"feedback_id": rating.event_id})


@router.get("/v1/feedback", openapi_extra=asks(FeedbackQuery))
async def list_feedback(request: Request) -> dict[str, Any]:
    """What everyone thinks of a request now, or without the scope `review`, the caller.

    A rating shows when it has landed in the store, a moment after its 200.
    """
    gateway = gateway_of(request)
    reader = await gateway.auth.require(request, "rate", "review")
    rater = None if "review" in reader.scopes else reader.owner
    request_id = read_query(request, FeedbackQuery).request_id
    ratings = await asyncio.to_thread(
        lambda: list(gateway.store.current_ratings(tenant=reader.tenant, request_id=request_id, rater=rater))
    )
    return {"object": "list", "data": [_public(rating) for rating in ratings]}


def _public(rating: Rating) -> dict[str, Any]:
    shown = {
        "request_id",
        "episode_id",
        "rater",
        "source",
        "name",
        "value",
        "correction",
        "comment",
        "tags",
        "time",
    }
    return {"feedback_id": rating.event_id, **rating.model_dump(mode="json", include=shown)}
