"""POST /v1/chat/completions: an agent answers as a model would."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.edge import AGENT_PATH
from gateway.invocation import Invocation
from gateway.openai_chat import ChatFormat, ChatRequest
from gateway.state import gateway_of
from gateway.streaming import AnswerStream, collect
from gateway.trace import trace_id
from gateway.wire import read

router = APIRouter(tags=["chat"])


@router.post(AGENT_PATH)
async def create_chat_completion(request: Request) -> Response:
    """Answer the last user message, streamed or whole. The body is OpenAI's; `model` is an agent or a pinned policy."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    body = await read(request, ChatRequest, gateway.config.max_body_bytes)
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
    form = ChatFormat(request.state.request_id, target.policy, body)
    headers = {"x-policy": target.policy}
    if body.stream:
        return AnswerStream(answer, form, headers)
    return JSONResponse(form.completion(await collect(request.receive, answer)), headers=headers)
