"""MLflow's API for assessments: its client rates here when it is given this address as its tracking URI."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from feedback.events import Rating
from gateway.description import BASIC, errors_as, takes
from gateway.errors import in_shape
from gateway.feedback_shapes.mlflow import ERROR, MlflowCreateAssessment, created, found, refusal
from gateway.state import gateway_of
from gateway.wire import read

router = APIRouter(tags=["feedback of other products' clients"])
_ONE = "/api/3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}"


@router.post(
    "/api/3.0/mlflow/traces/{trace_id}/assessments",
    responses=errors_as(ERROR),
    openapi_extra=takes(MlflowCreateAssessment) | BASIC,
)
async def create_mlflow_assessment(request: Request, trace_id: str) -> Response:
    """Rate a trace, or a span of it, as MLflow's client does. An expectation is a correction.

    The trace is named by its W3C id, with `tr-` before it or without, or by a request's id.
    """
    return await in_shape(_create(request, trace_id), refusal)


async def _create(request: Request, trace_id: str) -> Response:
    gateway = gateway_of(request)
    caller = await gateway.auth.require_of_any(request, "rate")
    await gateway.limits.admit_told(caller)
    body = await read(request, MlflowCreateAssessment, gateway.config.max_body_bytes, gateway.config.bounds)
    asked = body.assessment
    overridden = []
    if asked.overrides:
        owner, param = caller.owner, "assessment.overrides"
        overridden = [await gateway.rater.find(asked.overrides, caller.tenant, owner=owner, param=param)]
    weighed = await gateway.rater.weigh(caller, asked.opinion(trace_id))
    await gateway.rater.record([weighed])
    await gateway.rater.withdraw(*(rating for rating in overridden if not rating.on_the_same(weighed.rating)))
    return created(asked, trace_id, weighed.rating)


@router.get(_ONE, responses=errors_as(ERROR), openapi_extra=dict(BASIC))
async def get_mlflow_assessment(request: Request, trace_id: str, assessment_id: str) -> Response:
    """What the caller has said under this id: the client asks before it overrides it. The trace is not looked at."""
    return await in_shape(_get(request, trace_id, assessment_id), refusal)


async def _get(request: Request, trace_id: str, assessment_id: str) -> Response:
    gateway = gateway_of(request)
    rating = await _said(request, assessment_id)
    return found(rating, trace_id, stands=await asyncio.to_thread(gateway.records.stands, rating))


@router.delete(_ONE, responses=errors_as(ERROR), openapi_extra=dict(BASIC))
async def delete_mlflow_assessment(request: Request, trace_id: str, assessment_id: str) -> Response:  # noqa: ARG001  # the id says it all
    """Take back what the caller has said under this id. The trace is not looked at."""
    return await in_shape(_delete(request, assessment_id), refusal)


async def _delete(request: Request, assessment_id: str) -> Response:
    gateway = gateway_of(request)
    await gateway.rater.withdraw(await _said(request, assessment_id))
    return JSONResponse({})


async def _said(request: Request, assessment_id: str) -> Rating:
    gateway = gateway_of(request)
    caller = await gateway.auth.require_of_any(request, "rate")
    return await gateway.rater.find(assessment_id, caller.tenant, owner=caller.owner, param="assessment_id")
