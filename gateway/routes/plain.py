"""POST /v1/completions and /v1/embeddings: for plain models only, which `gateway.passthrough` answers before this."""

from typing import NoReturn

from fastapi import APIRouter, Request

from gateway.description import streams, takes
from gateway.errors import ApiError
from gateway.passthrough.request import schema
from gateway.state import gateway_of
from gateway.wire import load, read_body

router = APIRouter(tags=["plain models"])


@router.post(
    "/v1/completions",
    response_model=None,
    responses=streams("OpenAI's completion, or its chunks."),
    openapi_extra=takes(schema("/v1/completions", "CompletionRequest")),
)
async def create_completion(request: Request) -> NoReturn:
    """Continue a prompt. The body is OpenAI's; `model` is a plain model's name."""
    await _refuse(request)


@router.post(
    "/v1/embeddings",
    response_model=None,
    openapi_extra=takes(schema("/v1/embeddings", "EmbeddingsRequest")),
)
async def create_embeddings(request: Request) -> NoReturn:
    """Vectors of texts. The body is OpenAI's; `model` is a plain model's name."""
    await _refuse(request)


async def _refuse(request: Request) -> NoReturn:
    """What comes here names no plain model. Raises `ApiError` (400, 404)."""
    gateway = gateway_of(request)
    await gateway.auth.require(request, "invoke")
    body = load(await read_body(request.receive, gateway.config.max_body_bytes), gateway.config.bounds)
    if not isinstance(body, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    model = body.get("model")
    if model is None:
        raise ApiError(400, "Missing parameter: model.", code="missing_required_parameter", param="model")
    if isinstance(model, str) and model.partition("@")[0] in gateway.agents:
        message = f"{model} is an agent: it answers at /v1/chat/completions only."
        raise ApiError(400, message, code="invalid_value", param="model")
    names = ", ".join(gateway.passthrough.policies)
    message = f"The model {model!r} does not exist here. Use one of: {names}."
    raise ApiError(404, message, code="model_not_found", param="model")
