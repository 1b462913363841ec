"""POST /v1/chat/completions: an agent answers as a model would."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from feedback.store import Key
from gateway.asking import ask
from gateway.edge import AGENT_PATH
from gateway.idempotency import ends_with_done, whole
from gateway.openai_chat import ChatFormat, ChatRequest
from gateway.state import Gateway, gateway_of
from gateway.streaming import AnswerStream, collect
from gateway.wire import parse, read_body

router = APIRouter(tags=["chat"])


@router.post(AGENT_PATH)
async def create_chat_completion(request: Request) -> Response:
    """Answer the last user message, streamed or whole. The body is OpenAI's; `model` is an agent or a pinned policy."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, ChatRequest, gateway.config.bounds)
    return await gateway.idempotency.once(
        request,
        caller,
        data,
        lambda: _answer(request, gateway, caller, body),
        complete=ends_with_done if body.stream else whole,
    )


async def _answer(request: Request, gateway: Gateway, caller: Key, body: ChatRequest) -> Response:
    agent = gateway.agents[gateway.serving.resolve(body.model).agent]
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
    return JSONResponse(form.completion(await collect(request.receive, asked.answer)), headers=asked.headers)
