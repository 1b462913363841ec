"""Ratings: what people think of an answer, of an episode, or of one call, by the ids that they got with it."""

from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from feedback.store import Key
from gateway.description import asks, takes
from gateway.errors import ApiError
from gateway.feedback_shapes.flywheel import FeedbackBatch, FeedbackQuery, FeedbackRequest, shown, taken
from gateway.opinion import Opinion
from gateway.rating import Weighed
from gateway.state import gateway_of
from gateway.wire import parse, read_body, read_query, validate

router = APIRouter(tags=["feedback"])


@router.post("/v1/feedback", openapi_extra=takes(FeedbackRequest))
async def create_feedback(request: Request) -> Response:
    """Rate a request, one call in it, or an episode. The same person's later rating by the same metric supersedes it.

    `matched` is false where a request has a fresh id and has not been recorded yet: they are joined later.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "rate")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, FeedbackRequest, gateway.config.bounds)

    async def answer() -> Response:
        await gateway.limits.admit_told(caller)
        weighed = await gateway.rater.weigh(caller, body.opinion())
        await gateway.rater.record([weighed])
        return JSONResponse(taken(weighed))

    return await gateway.idempotency.once(request, caller, data, answer)


@router.post("/v1/feedback/batch", openapi_extra=takes(FeedbackBatch))
async def create_feedback_batch(request: Request) -> Response:
    """Rate many things at once. `data` answers each item in its place, as `POST /v1/feedback` would, errors too."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "rate")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, FeedbackBatch, gateway.config.bounds)

    async def answer() -> Response:
        await gateway.limits.admit_told(caller)
        outcomes = await gateway.rater.take_each(caller, [partial(_opinion, item) for item in body.items])
        return JSONResponse({"object": "list", "data": [_outcome(one) for one in outcomes]})

    return await gateway.idempotency.once(request, caller, data, answer, complete=_final)


def _final(body: bytes) -> bool:
    """Whether the same batch again would be answered alike: not where something failed here, which may be over then."""
    errors = (one.get("error") for one in orjson.loads(body)["data"])
    return all(error is None or error["type"] != "server_error" for error in errors)


def _opinion(item: Any) -> Opinion:
    return validate(item, FeedbackRequest).opinion()


def _outcome(one: Weighed | ApiError) -> dict[str, Any]:
    return one.body() if isinstance(one, ApiError) else taken(one)


@router.get("/v1/feedback", openapi_extra=asks(FeedbackQuery))
async def list_feedback(request: Request) -> dict[str, Any]:
    """What people think now: everyone, or without the scope `review`, the caller and those for whom it rates.

    A rating shows when it has landed in the store, a moment after its 200, and may land behind later ones. Who polls
    asks for the last minutes again by `since`, and knows by `feedback_id` what it has.
    """
    gateway = gateway_of(request)
    reader = await gateway.auth.require(request, "rate", "review")
    query = read_query(request, FeedbackQuery)
    owner = _only(reader)
    after = query.after and await gateway.rater.find(query.after, reader.tenant, owner=owner, param="after")
    page = await gateway.rater.page(
        query.filter(owner), reader.tenant, limit=query.limit, after=after or None, order=query.order
    )
    data = [shown(rating) for rating in page.ratings]
    return {
        "object": "list",
        "data": data,
        "has_more": page.has_more,
        "first_id": data[0]["feedback_id"] if data else "",
        "last_id": data[-1]["feedback_id"] if data else "",
    }


@router.get("/v1/feedback/{feedback_id}")
async def retrieve_feedback(request: Request, feedback_id: str) -> dict[str, Any]:
    """What was said under this id, whether it still stands or not."""
    gateway = gateway_of(request)
    reader = await gateway.auth.require(request, "rate", "review")
    return shown(await gateway.rater.find(feedback_id, reader.tenant, owner=_only(reader)))


@router.delete("/v1/feedback/{feedback_id}")
async def withdraw_feedback(request: Request, feedback_id: str) -> dict[str, Any]:
    """Take back what the caller, or one of those for whom it rates, has said. The event stays, and counts no more.

    What has been withdrawn or superseded before is left as it is.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "rate")
    await gateway.rater.withdraw(await gateway.rater.find(feedback_id, caller.tenant, owner=caller.owner))
    return {"feedback_id": feedback_id, "object": "feedback", "withdrawn": True}


def _only(reader: Key) -> str | None:
    return None if "review" in reader.scopes else reader.owner
