"""Whether a rating can be taken: about a request that there was, by a declared metric, with a usable correction."""

import asyncio
from typing import Any

import jsonschema

from agents.manifest import Agent
from feedback.events import Rating
from gateway.errors import ApiError
from gateway.recorder import Recorded, Recorder
from gateway.records import Records

_MAX_ROWS, _MAX_COLUMNS = 1_000, 50


async def recorded_request(recorder: Recorder, records: Records, request_id: str, tenant: str) -> Recorded:
    """The request, wherever it is on its way to the store. Raises `ApiError` (404): unknown, or another tenant's."""
    found = recorder.recent(request_id, tenant)
    if found is not None:
        return found
    landed = await asyncio.to_thread(records.find, request_id, tenant)
    if landed is None:
        message = f"There is no request {request_id!r}. Send the `id` of a completion that this gateway gave."
        raise ApiError(404, message, code="request_not_found", param="request_id")
    return Recorded(landed.tenant, landed.agent, landed.episode_id, landed.trace_id)


def checked_rating(rating: Rating, agent: Agent | None) -> Rating:
    """The rating itself, if the agent's manifest allows it. Raises `ApiError` (400), which says what is expected."""
    if agent is None:
        message = (
            "No agent that is served here answered this request, and only agents declare what can be rated."
        )
        raise ApiError(400, message, code="agent_not_served", param="request_id")
    metric = agent.metrics.get(rating.name)
    if metric is None:
        message = f"{agent.name} has no metric {rating.name!r}. Declared: {', '.join(agent.metrics)}."
        raise ApiError(400, message, code="unknown_metric", param="name")
    if isinstance(rating.value, dict) or not metric.accepts(rating.value):
        message = f"The metric {rating.name!r} expects {metric.expectation()}."
        raise ApiError(400, message, code="invalid_value", param="value")
    if isinstance(rating.correction, dict):
        _check_correction(rating.correction, agent)
    return rating


def _check_correction(correction: dict[str, Any], agent: Agent) -> None:
    if correction.keys() == {"rows"}:
        _check_rows(correction["rows"])
        return
    try:
        jsonschema.validate(correction, agent.response_schema)
    except jsonschema.ValidationError as error:
        message = (
            f'A correction is {{"rows": [[…], …]}}, or an answer of {agent.name} by its response schema; '
            f"this is neither: {error.message[:300]}"
        )
        raise ApiError(400, message, code="invalid_value", param="correction") from error


def _check_rows(rows: Any) -> None:
    def refuse(message: str) -> ApiError:
        return ApiError(400, message, code="invalid_value", param="correction.rows")

    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise refuse("rows must be a list of rows, each a list of values.")
    if len(rows) > _MAX_ROWS or any(len(row) > _MAX_COLUMNS for row in rows):
        raise refuse(f"At most {_MAX_ROWS} rows of {_MAX_COLUMNS} columns.")
    if any(isinstance(value, dict | list) for row in rows for value in row):
        raise refuse("A value in a row is a string, a number, true, false or null.")
