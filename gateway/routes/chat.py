"""POST /v1/chat/completions: an agent answers as a model would."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.description import streams, takes
from gateway.edge import AGENT_PATH
from gateway.external_request import ExternalRequest
from gateway.invocation import Invocation
from gateway.openai_chat import ChatFormat, ChatRequest
from gateway.state import gateway_of
from gateway.streaming import ChatStream, collect
from gateway.trace import trace_id
from gateway.wire import read_json, validate

router = APIRouter(tags=["chat"])


@router.post(
    AGENT_PATH,
    responses=streams("OpenAI's chat completion, or its chunks."),
    openapi_extra=takes(ChatRequest, ExternalRequest),
)
async def create_chat_completion(request: Request) -> Response:
    """Answer the last user message, streamed or whole. The body is OpenAI's; `model` is an agent or a pinned policy,
    or a model of another provider where the operator has configured one.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    asked = await read_json(request, gateway.config.max_body_bytes)
    if gateway.external_chat.answers(asked):
        return await gateway.external_chat.respond(request, caller, validate(asked, ExternalRequest))
    body = validate(asked, ChatRequest)
    target = gateway.serving.resolve(body.model)
    agent = gateway.agents[target.agent]
    answer = gateway.invoker.start(
        Invocation(
            request_id=request.state.request_id,
            episode_id=request.state.episode_id,
            trace_id=trace_id(request.headers.get("traceparent")),
            agent=agent,
            target=target,
            caller=caller,
            messages=body.input(agent),
            sampling=body.sampling(agent),
            metadata=body.recorded_metadata(),
        )
    )
    form = ChatFormat(request.state.request_id, body.model, target.policy, body.include_usage)
    headers = {"x-policy": target.policy}
    if body.stream:
        return ChatStream(answer, form, headers)
    return JSONResponse(form.completion(await collect(request.receive, answer)), headers=headers)
