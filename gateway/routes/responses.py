"""/v1/responses: an agent or a plain model answers, and the answer can be looked up, continued and deleted."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from feedback.events import RequestFinished, Turn
from feedback.store import Key, Unfinished
from gateway.asking import ask
from gateway.conversation import input_items
from gateway.description import asks, streams, takes
from gateway.edge import AGENT_PATH, RESPONSES_PATH
from gateway.errors import ApiError
from gateway.idempotency import ends_with_response, whole
from gateway.openai_response import in_background, opened, response_object, unfinished_object
from gateway.openai_responses import Include, ResponsesBody, ResponsesRequest
from gateway.passthrough.responding import ResponseCapture
from gateway.plain_responses import PlainResponsesRequest
from gateway.response_events import ResponseEvents
from gateway.state import Gateway, gateway_of
from gateway.streaming import AnswerStream, WholeAnswer
from gateway.wire import Body, Refused, load, read_body, read_query, validate

router = APIRouter(tags=["responses"])

_NO_REPLAY = Refused("a response is streamed while it is made, and not again; leave it out", ("false",))


class RetrieveQuery(Body):
    """The query of `GET /v1/responses/{response_id}`."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "stream": _NO_REPLAY,
        "starting_after": _NO_REPLAY,
        "include_obfuscation": _NO_REPLAY,
    }
    include: tuple[Include, ...] = ()


class ItemsQuery(Body):
    """The query of `GET /v1/responses/{response_id}/input_items`. What can be included occurs in no input item."""

    after: str | None = None
    include: tuple[Include, ...] = ()
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


@router.post(
    RESPONSES_PATH,
    responses=streams("OpenAI's response, or its events."),
    openapi_extra=takes(ResponsesRequest, PlainResponsesRequest),
)
async def create_response(request: Request) -> Response:
    """Answer, streamed or whole, or begin to in the background. The body is OpenAI's; `model` is an agent, a pinned
    policy or a plain model.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    asked = load(data, gateway.config.bounds)
    if gateway.external_chat.answers(asked):
        message = f"{asked['model']} is a model of another provider: it answers at {AGENT_PATH} only."
        raise ApiError(400, message, code="invalid_value", param="model")
    body: ResponsesBody
    if gateway.passthrough.answers(asked):
        body = plain = validate(asked, PlainResponsesRequest)
        answer = partial(_answer_plainly, request, gateway, caller, plain)
    else:
        body = own = validate(asked, ResponsesRequest)
        answer = partial(_answer, request, gateway, caller, own)
    complete = ends_with_response if body.stream else whole
    return await gateway.idempotency.once(request, caller, data, answer, complete=complete)


async def _answer_plainly(
    request: Request, gateway: Gateway, caller: Key, body: PlainResponsesRequest
) -> Response:
    previous = await _previous(request, gateway, caller, body)
    asked = body.asked(request.state.request_id, previous, stored=gateway.config.capture)
    form = partial(ResponseCapture, body=body)
    begin = partial(gateway.passthrough.respond, request, caller, body.model, asked, form)
    if not body.background:
        return await begin()
    if not gateway.config.capture:
        message = "background: requests to plain models are not recorded here, so it could not be looked up."
        raise ApiError(400, message, code="unsupported_parameter", param="background")
    shown = opened(request.state.request_id, Turn.model_validate(asked.turn), body.instructions)
    return await gateway.background.start(request, caller, shown, begin)


async def _previous(
    request: Request, gateway: Gateway, caller: Key, body: ResponsesBody
) -> RequestFinished | None:
    """The response that this one continues, whose episode it joins. Raises `ApiError` (400)."""
    if body.previous_response_id is None:
        return None
    previous = await gateway.responses.previous(body.previous_response_id, caller.tenant)
    if not request.state.episode_given:
        request.state.episode_id = previous.episode_id
    return previous


async def _answer(request: Request, gateway: Gateway, caller: Key, body: ResponsesRequest) -> Response:
    previous = await _previous(request, gateway, caller, body)
    agent = gateway.agents[gateway.serving.resolve(body.model, gateway.passthrough.policies).agent]
    response_id = request.state.request_id
    messages, turn = body.conversation(agent, response_id, previous)

    async def begin() -> Response:
        asked = await ask(
            request,
            caller,
            agent,
            model=body.model,
            messages=messages,
            sampling=body.sampling(agent),
            metadata=body.recorded_metadata(),
            turn=turn,
        )
        if body.stream:
            events = ResponseEvents(response_id, agent.name, turn, body)
            return AnswerStream(asked.answer, events, asked.headers)
        return WholeAnswer(asked.answer, partial(response_object, include=body.include), asked.headers)

    if not body.background:
        return await begin()
    shown = opened(response_id, turn, body.instructions)
    return await gateway.background.start(request, caller, shown, begin)


@router.get(f"{RESPONSES_PATH}/{{response_id}}", openapi_extra=asks(RetrieveQuery))
async def retrieve_response(request: Request, response_id: str) -> Response:
    """The response again, from what was recorded; while it is made there is only one in the background to look up."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    query = read_query(request, RetrieveQuery)
    return _shown(await gateway.responses.find(response_id, caller.tenant), query.include)


def _shown(found: RequestFinished | Unfinished, include: Sequence[Include] = ()) -> Response:
    if isinstance(found, Unfinished):
        return JSONResponse(unfinished_object(found))
    return JSONResponse(response_object(found, include), headers={"x-policy": found.policy})


@router.delete(f"{RESPONSES_PATH}/{{response_id}}")
async def delete_response(request: Request, response_id: str) -> dict[str, Any]:
    """It can be looked up and continued no more. The record of what happened stays: this is no erasure.

    Of a response that is in progress this is refused (409): cancel it first.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    await gateway.responses.delete(response_id, caller.tenant, caller.owner)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post(f"{RESPONSES_PATH}/{{response_id}}/cancel")
async def cancel_response(request: Request, response_id: str) -> Response:
    """Stop making a response in the background, and answer with it; what is over is answered as it ended.

    Any other is refused, as OpenAI refuses it: to cancel it, close the connection.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    found = await gateway.background.cancel(response_id, caller.tenant)
    if isinstance(found, RequestFinished) and not in_background(found):
        message = "Cannot cancel a synchronous response: only responses created with background: true can be cancelled."
        raise ApiError(400, message, code="response_not_in_background", param="response_id")
    return _shown(found)


@router.get(f"{RESPONSES_PATH}/{{response_id}}/input_items", openapi_extra=asks(ItemsQuery))
async def list_input_items(request: Request, response_id: str) -> dict[str, Any]:
    """The conversation that it answers, the newest item first unless `order` says otherwise."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    query = read_query(request, ItemsQuery)
    items = input_items(await gateway.responses.get(response_id, caller.tenant))
    if query.order == "desc":
        items.reverse()
    ids = [item["id"] for item in items]
    if query.after is not None and query.after not in ids:
        message = f"after: this response has no input item {query.after!r}."
        raise ApiError(400, message, code="invalid_value", param="after")
    first = 0 if query.after is None else ids.index(query.after) + 1
    page = items[first : first + query.limit]
    return {
        "object": "list",
        "data": page,
        "has_more": first + len(page) < len(items),
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
    }
