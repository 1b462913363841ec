"""Langfuse's API for scores: its SDKs rate here when they are given this address, and our key as the secret key."""

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from feedback.store import Key
from gateway.description import BASIC, errors_as, takes
from gateway.errors import ApiError, in_shape
from gateway.feedback_shapes.langfuse import (
    ERROR,
    MOST,
    SCORES,
    LangfuseBatch,
    LangfuseScore,
    accepted,
    ingested,
    opinion_of_event,
    projects_of,
    refusal,
)
from gateway.opinion import Opinion
from gateway.state import Gateway, gateway_of
from gateway.wire import load, read_body, validate

router = APIRouter(tags=["feedback of other products' clients"])

_ERRORS = errors_as(ERROR)


@router.post(
    "/api/public/scores",
    responses={
        202: {"description": "A list of scores, all of them recorded."},
        207: {"description": "A list of scores, some of them refused."},
        **_ERRORS,
    },
    openapi_extra=takes(LangfuseScore, SCORES) | BASIC,
)
async def create_langfuse_scores(request: Request) -> Response:
    """Rate as Langfuse's clients do: by one score, or by a list of which each is taken or refused by itself."""
    return await in_shape(_create(request), refusal)


async def _create(request: Request) -> Response:
    gateway, caller, asked = await _asked(request)
    if isinstance(asked, list):
        if len(asked) > MOST:
            message = f"{len(asked)} scores: at most {MOST} are taken at once. Send fewer."
            raise ApiError(400, message, code="array_above_max_length")
        outcomes = await gateway.rater.take_each(caller, [partial(_opinion, score) for score in asked])
        return accepted([one for one in outcomes if isinstance(one, ApiError)], len(asked))
    score = validate(asked, LangfuseScore)
    weighed = await gateway.rater.weigh(caller, score.opinion())
    await gateway.rater.record([weighed])
    return JSONResponse({"id": score.id or weighed.rating.event_id})


def _opinion(score: Any) -> Opinion:
    return validate(score, LangfuseScore).opinion()


@router.post(
    "/api/public/ingestion",
    status_code=207,
    responses=_ERRORS,
    openapi_extra=takes(LangfuseBatch) | BASIC,
)
async def ingest_langfuse_events(request: Request) -> Response:
    """Rate as Langfuse's older SDKs do: of the events in the batch, those of the type `score-create` are taken."""
    return await in_shape(_ingest(request), refusal)


async def _ingest(request: Request) -> Response:
    gateway, caller, asked = await _asked(request)
    events = validate(asked, LangfuseBatch).batch
    outcomes = await gateway.rater.take_each(caller, [partial(opinion_of_event, event) for event in events])
    return ingested(events, outcomes)


@router.get("/api/public/projects", responses=_ERRORS, openapi_extra=dict(BASIC))
async def list_langfuse_projects(request: Request) -> Response:
    """The one project of a key, which is its tenant: `auth_check()` of Langfuse's SDK asks for it."""
    return await in_shape(_projects(request), refusal)


async def _projects(request: Request) -> Response:
    caller = await gateway_of(request).auth.require_of_any(request, "rate")
    return projects_of(caller.tenant)


@router.delete("/api/public/scores/{score_id}", status_code=202, responses=_ERRORS, openapi_extra=dict(BASIC))
async def delete_langfuse_score(request: Request, score_id: str) -> Response:
    """Take back a score, by the id that its client chose or that it was given here."""
    return await in_shape(_delete(request, score_id), refusal)


async def _delete(request: Request, score_id: str) -> Response:
    gateway = gateway_of(request)
    caller = await gateway.auth.require_of_any(request, "rate")
    said = await asyncio.to_thread(
        gateway.records.ratings_of_client, score_id, caller.owner, caller.tenant
    ) or [await gateway.rater.find(score_id, caller.tenant, owner=caller.owner, param="scoreId")]
    await gateway.rater.withdraw(*said)
    return JSONResponse({"message": "The score was taken back."}, 202)


async def _asked(request: Request) -> tuple[Gateway, Key, Any]:
    gateway = gateway_of(request)
    caller = await gateway.auth.require_of_any(request, "rate")
    await gateway.limits.admit_told(caller)
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    return gateway, caller, load(data, gateway.config.bounds)
