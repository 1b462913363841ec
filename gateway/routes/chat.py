"""POST /v1/chat/completions: an agent answers as a model would."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from feedback.store import Key
from gateway.edge import AGENT_PATH
from gateway.idempotency import ends_with_done, whole
from gateway.invocation import Invocation
from gateway.metering import AgentMeter
from gateway.openai_chat import ChatFormat, ChatRequest
from gateway.state import Gateway, gateway_of
from gateway.streaming import ChatStream, collect
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
    target = gateway.serving.resolve(body.model)
    agent = gateway.agents[target.agent]
    messages, sampling = body.input(agent), body.sampling(agent)
    meter = await AgentMeter.admit(gateway.limits, caller, agent, messages, sampling)
    answer = gateway.invoker.start(
        Invocation(
            request_id=request.state.request_id,
            episode_id=request.state.episode_id,
            trace=request.state.trace,
            agent=agent,
            model=body.model,
            target=target,
            caller=caller,
            messages=messages,
            sampling=sampling,
            metadata=body.recorded_metadata(),
        )
    )
    answer.when_over(meter.settle)
    form = ChatFormat(request.state.request_id, body.model, target.policy, body.include_usage)
    headers = {"x-policy": target.policy, **meter.headers}
    if body.stream:
        return ChatStream(answer, form, headers)
    return JSONResponse(form.completion(await collect(request.receive, answer)), headers=headers)
