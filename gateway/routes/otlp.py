"""OTLP over HTTP: what applications of others did, and what their evaluations say of it."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.errors import EXPECTED
from gateway.ingest import JSON, PROTOBUF, refusal
from gateway.state import gateway_of

router = APIRouter(tags=["telemetry"])


def _exchanges(sent: str, got: str, field: str) -> dict[str, Any]:
    """What a route of OTLP takes and answers; its messages are described by OpenTelemetry, not here."""
    export = {
        "title": sent,
        "type": "object",
        "properties": {field: {"type": ["array", "null"]}},
    }  # protobuf's JSON: null is unset
    packed = {"title": f"{sent}Protobuf", "type": "string", "format": "binary"}
    return {
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": export}, PROTOBUF: {"schema": packed}},
            }
        },
        "responses": {200: _message(got), "default": _message("google.rpc.Status")},
    }


def _message(name: str) -> dict[str, Any]:
    kinds = {JSON: {"schema": {"type": "object"}}, PROTOBUF: {"schema": {"type": "string"}}}
    return {"description": f"{name}, in the encoding of the request.", "content": kinds}


@router.post(
    "/v1/traces", **_exchanges("ExportTraceServiceRequest", "ExportTraceServiceResponse", "resourceSpans")
)
async def export_traces(request: Request) -> Response:
    """Take spans by the GenAI conventions: each agent's run, or model call outside one, becomes a request."""
    gateway = gateway_of(request)
    try:
        sender = await gateway.auth.require(request, "ingest")
        await gateway.limits.admit_told(sender)
        return await gateway.ingest.traces(request, sender)
    except EXPECTED as error:
        return refusal(request, error)


@router.post(
    "/v1/logs", **_exchanges("ExportLogsServiceRequest", "ExportLogsServiceResponse", "resourceLogs")
)
async def export_logs(request: Request) -> Response:
    """Take log records: each event `gen_ai.evaluation.result` becomes a rating. Others are not looked at."""
    gateway = gateway_of(request)
    try:
        sender = await gateway.auth.require(request, "rate")
        await gateway.limits.admit_told(sender)
        return await gateway.ingest.logs(request, sender)
    except EXPECTED as error:
        return refusal(request, error)
