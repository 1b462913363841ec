"""Is it alive, is it ready, and how is it doing."""

import asyncio
from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from gateway.condition import all_figures, condition_anywhere, waiting
from gateway.description import OPEN
from gateway.state import gateway_of

router = APIRouter(tags=["health"])


@router.get("/healthz", openapi_extra=OPEN)
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", openapi_extra=OPEN, responses={503: {"description": "Not ready: what is missing."}})
async def readyz(request: Request) -> JSONResponse:
    """200 when every agent can answer and be recorded, in every worker, else 503 with what is missing.

    `degraded` is what is away and keeps no answer from being given: the store.
    """
    found = await condition_anywhere(gateway_of(request))
    told = {"ready": not found.missing, "missing": found.missing, "degraded": found.degraded}
    return JSONResponse(told, 503 if found.missing else 200)


@router.get("/v1/status")
async def status(request: Request) -> dict[str, Any]:
    """For operators: policies, requests in progress, what waits in the outboxes, what the store holds."""
    gateway = gateway_of(request)
    await gateway.auth.require(request, "operate")
    workers = await all_figures(gateway)
    counts = await asyncio.to_thread(gateway.store.counts)
    in_flight = sum((Counter(worker.in_flight) for worker in workers.values()), Counter[str]())
    outstanding = sum((Counter(worker.outstanding) for worker in workers.values()), Counter[str]())
    depth, age = waiting(workers.values()) or (None, None)
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
                "outstanding": outstanding[replica.url],
                "verified": sorted(replica.verified),
            }
            for replica in gateway.pool.replicas
        },
        "outbox": {
            "depth": depth,
            "oldest_age_seconds": age,
        },
        "workers": {
            str(number): {"pid": worker.pid, "recorded": worker.recorded}
            for number, worker in workers.items()
        },
        "store": {name: counts[name] for name in ("requests", "ratings", "dead_letters")},
        "external": gateway.external_chat.describe(),
        "problems": gateway.keeper.problems or [],
    }
