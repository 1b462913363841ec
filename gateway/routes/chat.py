"""POST /v1/chat/completions: an agent answers as a model would."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from feedback.store import Key
from gateway.asking import ask
from gateway.description import streams, takes
from gateway.edge import AGENT_PATH
from gateway.external_request import ExternalRequest
from gateway.idempotency import ends_with_done, whole
from gateway.openai_chat import ChatFormat, ChatRequest
from gateway.passthrough.request import schema
from gateway.state import Gateway, gateway_of
from gateway.streaming import AnswerStream, collect
from gateway.wire import load, read_body, validate

router = APIRouter(tags=["chat"])


@router.post(
    AGENT_PATH,
    responses=streams("OpenAI's chat completion, or its chunks."),
    openapi_extra=takes(ChatRequest, ExternalRequest, schema(AGENT_PATH, "PlainChatRequest")),
)
async def create_chat_completion(request: Request) -> Response:
    """Answer the last user message, streamed or whole. The body is OpenAI's; `model` is an agent or a pinned policy,
    or a model of another provider where the operator has configured one.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    asked = load(data, gateway.config.bounds)
    if gateway.external_chat.answers(asked):
        other = validate(asked, ExternalRequest)
        answer, stream = partial(gateway.external_chat.respond, request, caller, other), other.stream
    else:
        body = validate(asked, ChatRequest)
        answer, stream = partial(_answer, request, gateway, caller, body), body.stream
    complete = ends_with_done if stream else whole
    return await gateway.idempotency.once(request, caller, data, answer, complete=complete)


async def _answer(request: Request, gateway: Gateway, caller: Key, body: ChatRequest) -> Response:
    others = (*gateway.passthrough.policies, *gateway.external_chat.names)
    agent = gateway.agents[gateway.serving.resolve(body.model, others).agent]
    asked = await ask(
        request,
        caller,
        agent,
        model=body.model,
        messages=body.input(agent),
        sampling=body.sampling(agent),
        metadata=body.recorded_metadata(),
    )
    form = ChatFormat(request.state.request_id, asked.target.policy, body)
    if body.stream:
        return AnswerStream(asked.answer, form, asked.headers)
    return JSONResponse(form.completion(await collect(request, asked.answer)), headers=asked.headers)
