"""/v1/responses: an agent answers, and the answer can be looked up, continued and deleted."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from feedback.store import Key
from gateway.asking import ask
from gateway.description import asks, streams, takes
from gateway.edge import RESPONSES_PATH
from gateway.errors import ApiError
from gateway.idempotency import ends_with_response, whole
from gateway.openai_response import input_items, response_object
from gateway.openai_responses import Include, ResponsesRequest
from gateway.response_events import ResponseEvents
from gateway.state import Gateway, gateway_of
from gateway.streaming import AnswerStream, collect
from gateway.wire import Body, Refused, parse, read_body, read_query

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
    openapi_extra=takes(ResponsesRequest),
)
async def create_response(request: Request) -> Response:
    """Answer, streamed or whole. The body is OpenAI's; `model` is an agent or a pinned policy."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, ResponsesRequest, gateway.config.bounds)
    return await gateway.idempotency.once(
        request,
        caller,
        data,
        lambda: _answer(request, gateway, caller, body),
        complete=ends_with_response if body.stream else whole,
    )


async def _answer(request: Request, gateway: Gateway, caller: Key, body: ResponsesRequest) -> Response:
    previous = None
    if body.previous_response_id is not None:
        previous = await gateway.responses.previous(body.previous_response_id, caller.tenant)
        if not request.state.episode_given:
            request.state.episode_id = previous.episode_id
    agent = gateway.agents[gateway.serving.resolve(body.model).agent]
    response_id = request.state.request_id
    messages, turn = body.conversation(agent, response_id, previous)
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
        form = ResponseEvents(response_id, agent.name, turn, body)
        return AnswerStream(asked.answer, form, asked.headers)
    await collect(request, asked.answer)
    event = asked.answer.event
    assert event is not None, "an answer is finished when it has been recorded, not before"
    return JSONResponse(response_object(event, body.include), headers=asked.headers)


@router.get(f"{RESPONSES_PATH}/{{response_id}}", openapi_extra=asks(RetrieveQuery))
async def retrieve_response(request: Request, response_id: str) -> Response:
    """The response again, from what was recorded; there is nothing to look up while it is being made."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    query = read_query(request, RetrieveQuery)
    event = await gateway.responses.get(response_id, caller.tenant)
    return JSONResponse(response_object(event, query.include), headers={"x-policy": event.policy})


@router.delete(f"{RESPONSES_PATH}/{{response_id}}")
async def delete_response(request: Request, response_id: str) -> dict[str, Any]:
    """It can be looked up and continued no more. The record of what happened stays: this is no erasure."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    await gateway.responses.delete(response_id, caller.tenant, caller.owner)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post(f"{RESPONSES_PATH}/{{response_id}}/cancel")
async def cancel_response(request: Request, response_id: str) -> Response:
    """Refused as OpenAI refuses it: only what runs in the background can be cancelled; else close the connection."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "invoke")
    await gateway.responses.get(response_id, caller.tenant)
    message = (
        "Cannot cancel a synchronous response: only responses created with background: true can be cancelled."
    )
    raise ApiError(400, message, code="response_not_in_background", param="response_id")


@router.get(f"{RESPONSES_PATH}/{{response_id}}/input_items", openapi_extra=asks(ItemsQuery))
async def list_input_items(request: Request, response_id: str) -> dict[str, Any]:
    """The conversation that it answers, the newest message first unless `order` says otherwise."""
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
