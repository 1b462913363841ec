"""GET /v1/models: the names that a request may have as its model."""

from typing import Any

from fastapi import APIRouter, Request

from gateway.errors import ApiError
from gateway.state import Gateway, gateway_of

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The agents, each followed by its policies that can be asked for by name; then plain, then external models."""
    gateway = gateway_of(request)
    await gateway.auth.require(request, "invoke")
    return {"object": "list", "data": [_model(gateway, name) for name in _names(gateway)]}


@router.get("/v1/models/{name}")
async def retrieve_model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    gateway = gateway_of(request)
    await gateway.auth.require(request, "invoke")
    names = _names(gateway)
    if name not in names:
        message = f"The model {name!r} does not exist. There are: {', '.join(names)}."
        raise ApiError(404, message, code="model_not_found", param="model")
    return _model(gateway, name)


def _names(gateway: Gateway) -> list[str]:
    return [*gateway.serving.models(), *gateway.passthrough.policies, *gateway.external_chat.names]


def _model(gateway: Gateway, name: str) -> dict[str, Any]:
    if name in gateway.external_chat.names:
        return {"id": name, "object": "model", "created": gateway.created, "owned_by": "external"}
    created = gateway.serving.known_since(name) or gateway.created
    return {"id": name, "object": "model", "created": created, "owned_by": "flywheel"}
