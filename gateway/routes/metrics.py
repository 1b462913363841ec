"""GET /metrics, for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/."""

import ipaddress

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from gateway.errors import ApiError
from gateway.state import gateway_of

router = APIRouter(tags=["health"])
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")  # a proxy on this machine is not its client


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    openapi_extra={"security": [{}, {"key": []}]},  # free from this machine
)
async def metrics(request: Request) -> Response:
    """Counts, durations and state; neither content nor secrets. Free from this machine, else by an operator's key."""
    gateway = gateway_of(request)
    if gateway.config.telemetry.metrics == "local" and not _is_local(request):
        await gateway.auth.require(request, "operate")
    text = await gateway.telemetry.exposition(gateway)
    if text is None:
        raise ApiError(404, "Metrics are off ([telemetry] metrics).", code="not_found")
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:  # no address: a name that a test client or a Unix socket made up
        return False
