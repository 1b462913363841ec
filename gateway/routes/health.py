"""Is it alive, is it ready, and how is it doing."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from feedback.outbox import OutboxError
from feedback.store import StoreError
from gateway.description import OPEN
from gateway.state import Gateway, gateway_of

router = APIRouter(tags=["health"])


@router.get("/healthz", openapi_extra=OPEN)
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", openapi_extra=OPEN, responses={503: {"description": "Not ready: what is missing."}})
async def readyz(request: Request) -> JSONResponse:
    """200 when every agent can answer and be recorded, else 503 with what is missing."""
    missing = await _missing(gateway_of(request))
    return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)


@router.get("/v1/status")
async def status(request: Request) -> dict[str, Any]:
    """For operators: policies, requests in progress, what waits in the outbox, what the store holds."""
    gateway = gateway_of(request)
    await gateway.auth.require(request, "operate")
    depth = await asyncio.to_thread(gateway.outbox.depth)
    counts = await asyncio.to_thread(gateway.store.counts)
    in_flight = gateway.serving.in_flight()
    agents = {}
    for agent in gateway.agents:
        alias = gateway.serving.alias(agent)
        agents[agent] = {
            "active": alias.active,
            "previous": alias.previous,
            "loaded": gateway.serving.ready(agent),
            "in_flight": {policy: n for policy, n in in_flight.items() if policy.startswith(f"{agent}@")},
        }
    return {
        "agents": agents,
        "replicas": {
            replica.url: {
                "in_rotation": gateway.pool.in_rotation(replica),
                "outstanding": replica.outstanding,
                "verified": sorted(replica.verified),
            }
            for replica in gateway.pool.replicas
        },
        "outbox": {"depth": depth.events, "oldest_age_seconds": depth.oldest_age_seconds},
        "store": {name: counts[name] for name in ("requests", "ratings", "dead_letters")},
        "external": gateway.external_chat.describe(),
        "problems": gateway.keeper.problems or [],
    }


async def _missing(gateway: Gateway) -> list[str]:
    missing = []
    answers = await asyncio.gather(*(replica.ready() for replica in gateway.pool.replicas))
    if not any(answers):
        missing += [f"vLLM at {replica.url} does not answer" for replica in gateway.pool.replicas]
    try:
        await asyncio.to_thread(gateway.store.dead_letter_count)  # any question that is quick
    except StoreError as error:
        missing.append(f"the store does not answer: {error}")
    try:
        await asyncio.to_thread(gateway.outbox.check)
    except OutboxError as error:
        missing.append(f"the outbox takes no events: {error}")
    for agent in gateway.agents:
        active = gateway.serving.alias(agent).active
        if not gateway.serving.is_ready(active):
            missing.append(f"{active}, the active policy of {agent}, is not loaded")
    return missing + (gateway.keeper.problems or [] if missing else [])
