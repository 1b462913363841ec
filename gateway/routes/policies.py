"""For operators: what policies there are, and their way to being the one that answers."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, field_validator

from feedback.events import PolicyState
from feedback.policies import PolicyStatus, is_base
from gateway.checkpoint import Checkpoint
from gateway.description import takes
from gateway.errors import ApiError
from gateway.registry import agent_of
from gateway.state import Gateway, gateway_of
from gateway.wire import Body, read

router = APIRouter(tags=["policies"])

_Reason = Annotated[str, Field(max_length=2_000)]


class RegisterRequest(Body):
    """A trained checkpoint: its policy `<agent>@<digest>`, and its folder, absolute, as gateway and vLLM see it."""

    policy: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}@[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    path: str = Field(min_length=1, max_length=1_000)
    evidence: dict[str, Any] = Field(default_factory=dict)

    @field_validator("policy")
    @classmethod
    def _not_a_base(cls, policy: str) -> str:
        if is_base(policy):
            raise ValueError(
                "digests that begin with base- are kept for the base model, which needs no registration"
            )
        return policy


class EvaluationRequest(Body):
    """The verdict of the gate, with its reasons and what it is based on."""

    passed: bool
    reasons: list[_Reason] = Field(default_factory=list, max_length=32)
    evidence: dict[str, Any] = Field(default_factory=dict)


class ReasonRequest(Body):
    """Why an operator did it: it stays in the policy's history."""

    reason: _Reason = Field(min_length=1)


@router.get("/v1/policies")
async def list_policies(request: Request, agent: str | None = None) -> dict[str, Any]:
    """The policies of one agent, or of all, with their history."""
    gateway = gateway_of(request)
    await gateway.auth.require(request, "operate")
    agents = gateway.registry.agents if agent is None else (gateway.registry.agent(agent),)
    statuses = [status for name in agents for status in gateway.registry.statuses(name).values()]
    return {"object": "list", "data": [_public(gateway, status) for status in statuses]}


@router.post("/v1/policies", status_code=201, openapi_extra=takes(RegisterRequest))
async def register_policy(request: Request) -> dict[str, Any]:
    """Make a complete checkpoint known as a candidate. Name and path are new: neither is ever reused."""
    gateway, by = await _operator(request)
    body = await read(request, RegisterRequest, gateway.config.max_body_bytes, gateway.config.bounds)
    gateway.registry.agent(agent_of(body.policy))
    await asyncio.to_thread(Checkpoint.read, Path(body.path), body.policy)
    owner = gateway.registry.path_owner(body.path)
    if owner is not None:
        message = f"{body.path} is the path of {owner}. Publish every checkpoint in a folder of its own."
        raise ApiError(409, message, code="path_reused", param="path")
    status = await gateway.registry.change(
        body.policy, "candidate", by=by, path=body.path, evidence=body.evidence, reason="registered"
    )
    return _public(gateway, status)


@router.post("/v1/policies/{policy}/evaluation", openapi_extra=takes(EvaluationRequest))
async def evaluate_policy(request: Request, policy: str) -> dict[str, Any]:
    """Record the gate's verdict: the policy is evaluated, or rejected for good."""
    gateway, by = await _operator(request)
    body = await read(request, EvaluationRequest, gateway.config.max_body_bytes, gateway.config.bounds)
    gateway.registry.status(policy)
    state: PolicyState = "evaluated" if body.passed else "rejected"
    reason = "; ".join(body.reasons)
    status = await gateway.registry.change(policy, state, by=by, reason=reason, evidence=body.evidence)
    return _public(gateway, status)


@router.post("/v1/policies/{policy}/promote", openapi_extra=takes(ReasonRequest))
async def promote_policy(request: Request, policy: str) -> dict[str, Any]:
    """Load it, verify it, and let it answer. Answers when that has happened, with how long each step took."""
    gateway, by = await _operator(request)
    body = await read(request, ReasonRequest, gateway.config.max_body_bytes, gateway.config.bounds)
    agent = gateway.registry.status(policy).agent
    with gateway.telemetry.swapping(agent, "promotion"):
        return vars(await gateway.hot_swap.promote(policy, by=by, reason=body.reason))


@router.post("/v1/agents/{agent}/rollback", openapi_extra=takes(ReasonRequest))
async def rollback_agent(request: Request, agent: str) -> dict[str, Any]:
    """Let the policy answer again that did before the active one."""
    gateway, by = await _operator(request)
    body = await read(request, ReasonRequest, gateway.config.max_body_bytes, gateway.config.bounds)
    agent = gateway.registry.agent(agent)
    with gateway.telemetry.swapping(agent, "rollback"):
        return vars(await gateway.hot_swap.rollback(agent, by=by, reason=body.reason))


async def _operator(request: Request) -> tuple[Gateway, str]:
    gateway = gateway_of(request)
    return gateway, (await gateway.auth.require(request, "operate")).owner


def _public(gateway: Gateway, status: PolicyStatus) -> dict[str, Any]:
    shown = {"state", "by", "reason", "time", "evidence"}
    return {
        "policy": status.policy,
        "agent": status.agent,
        "state": status.state,
        "since": status.since.isoformat(),
        "path": status.path,
        "loaded": gateway.serving.is_ready(status.policy),
        "history": [event.model_dump(mode="json", include=shown) for event in status.history],
    }
