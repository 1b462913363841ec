"""To be forgotten: what a person asked and said, or one request, goes from every store that gets to know of it."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field, model_validator
from starlette.responses import JSONResponse, Response

from feedback.events import Erased
from gateway.description import takes
from gateway.errors import ApiError
from gateway.state import gateway_of
from gateway.wire import Body, parse, read_body

router = APIRouter(tags=["erasures"])

_Name = Annotated[str, Field(min_length=1, max_length=200)]


class ErasureRequest(Body):
    """Who or what is to be forgotten: an owner of keys or a rater, or one request with all that was said of it."""

    person: _Name | None = None
    request_id: _Name | None = None
    tenant: _Name | None = Field(
        None, description="None: the key's own. Another's takes a key that may operate."
    )
    reason: str = Field("", max_length=20_000)

    @model_validator(mode="after")
    def _one_of_both(self) -> "ErasureRequest":
        if (self.person is None) == (self.request_id is None):
            raise ValueError("give person or request_id, one of them")
        return self


@router.post("/v1/erasures", status_code=202, openapi_extra=takes(ErasureRequest))
async def erase(request: Request) -> Response:
    """Have it forgotten, for good: what is there up to now, and what of it is still under way.

    The answer comes when the erasure is on the disk; each store carries it out when it arrives there. It covers neither
    policies that have learnt from it nor what went to other systems: traces, other providers, backups.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "erase")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, ErasureRequest, gateway.config.bounds)
    tenant = body.tenant or caller.tenant
    if tenant != caller.tenant:
        if "operate" not in caller.scopes:
            message = "This key erases in its own tenant only: another's takes the scope 'operate' as well."
            raise ApiError(403, message, code="missing_scope", param="tenant")
        await gateway.auth.require(request, "operate")  # and a key of the operators' tenant
    event = Erased(
        tenant=tenant, person=body.person, request_id=body.request_id, by=caller.owner, reason=body.reason
    )
    await gateway.recorder.erasure(event)
    return JSONResponse(
        {"erasure_id": event.event_id, "tenant": tenant, "until": event.time.isoformat()}, status_code=202
    )
