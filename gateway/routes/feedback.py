"""Ratings: what people think of an answer, of an episode, or of one call, by the ids that they got with it."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, Field, field_validator, model_validator
from starlette.responses import JSONResponse, Response

from feedback.events import Rating
from feedback.store import Filter, Key
from gateway.description import asks, takes
from gateway.errors import EXPECTED, ApiError, to_api_error
from gateway.openai_chat import Metadata
from gateway.opinion import About, Opinion
from gateway.rating import Weighed
from gateway.state import Gateway, gateway_of
from gateway.wire import Body, parse, read_body, read_query, validate

router = APIRouter(tags=["feedback"])

MOST_ITEMS = 500

_Short = Annotated[str, Field(min_length=1, max_length=200)]
_Text = Annotated[str, Field(min_length=1, max_length=20_000)]
_Scalar = bool | float | str
_Time = Annotated[AwareDatetime, Field(strict=False)]


class FeedbackRequest(Body):
    """The body of `POST /v1/feedback`: about a request, one `call` in it, or an episode."""

    request_id: _Short | None = None
    call: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Index in the request's calls, from 0."
    )
    episode_id: _Short | None = None
    name: _Short = "correct"
    value: _Scalar | dict[str, _Scalar] = Field(description="By the metric; of a rubric, one for each part.")
    correction: dict[str, Any] | _Text | None = None
    comment: str | None = Field(None, max_length=20_000)
    tags: Metadata | None = None
    source: _Short = "api"
    rater: _Short | None = Field(
        None, description="Whom the key's owner speaks for: recorded as `owner/rater`."
    )

    @field_validator(
        "value",
        mode="plain",
        json_schema_input_type=_Scalar | dict[Annotated[str, Field(max_length=200)], _Scalar],
    )
    @classmethod
    def _scalar_or_parts(cls, value: Any) -> Any:
        if isinstance(value, dict) and value and all(0 < len(name) <= 200 for name in value):
            return {name: _scalar(part) for name, part in value.items()}
        return _scalar(value)

    @model_validator(mode="after")
    def _about_one_thing(self) -> "FeedbackRequest":
        if (self.request_id is None) == (self.episode_id is None):
            raise ValueError("send either request_id or episode_id")
        if self.call is not None and self.request_id is None:
            raise ValueError("call: send the request_id to which the call belongs")
        return self

    def opinion(self) -> Opinion:
        """What it says."""
        param = "request_id" if self.episode_id is None else "episode_id"
        return Opinion(
            About(request_id=self.request_id, call=self.call, episode_id=self.episode_id, param=param),
            name=self.name,
            values=(self.value,),
            correction=self.correction,
            comment=self.comment,
            tags=self.tags or {},
            source=self.source,
            rater=self.rater,
        )


def _scalar(value: Any) -> _Scalar:
    if isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return float(value)
    raise ValueError("expected true or false, a number, text, or one of these for each part of a rubric")


class FeedbackBatch(Body):
    """The body of `POST /v1/feedback/batch`."""

    items: list[Any] = Field(
        min_length=1, max_length=MOST_ITEMS, description="Each a FeedbackRequest, and answered by itself."
    )


class FeedbackQuery(Body):
    """The query of `GET /v1/feedback`: which ratings, and which page of them."""

    request_id: _Short | None = None
    episode_id: _Short | None = None
    agent: _Short | None = None
    name: _Short | None = None
    rater: _Short | None = None
    source: _Short | None = None
    since: _Time | None = Field(None, description="Included.")
    until: _Time | None = Field(None, description="Not included.")
    withdrawn: bool = Field(
        default=False, description="Those that were taken back, instead of those that stand."
    )
    after: _Short | None = Field(None, description="The last feedback_id of the page before.")
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


@router.post("/v1/feedback", openapi_extra=takes(FeedbackRequest))
async def create_feedback(request: Request) -> Response:
    """Rate a request, one call in it, or an episode. The same person's later rating by the same metric supersedes it.

    `matched` is false where a request has a fresh id and has not been recorded yet: they are joined later.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "rate")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, FeedbackRequest, gateway.config.bounds)

    async def answer() -> Response:
        weighed = await gateway.rater.weigh(caller, body.opinion())
        await gateway.rater.record([weighed])
        return JSONResponse(_taken(weighed))

    return await gateway.idempotency.once(request, caller, data, answer)


@router.post("/v1/feedback/batch", openapi_extra=takes(FeedbackBatch))
async def create_feedback_batch(request: Request) -> Response:
    """Rate many things at once. `data` answers each item in its place, as `POST /v1/feedback` would, errors too."""
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "rate")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    body = parse(data, FeedbackBatch, gateway.config.bounds)

    async def answer() -> Response:
        weighed = [await _weighed(gateway, caller, item) for item in body.items]
        answers = await asyncio.gather(*(_recorded(gateway, one) for one in weighed))
        return JSONResponse({"object": "list", "data": answers})

    return await gateway.idempotency.once(request, caller, data, answer)


async def _weighed(gateway: Gateway, caller: Key, item: Any) -> Weighed | ApiError:
    try:
        return await gateway.rater.weigh(caller, validate(item, FeedbackRequest).opinion())
    except EXPECTED as error:
        return to_api_error(error)


async def _recorded(gateway: Gateway, weighed: Weighed | ApiError) -> dict[str, Any]:
    if isinstance(weighed, ApiError):
        return weighed.body()
    try:
        await gateway.rater.record([weighed])
    except EXPECTED as error:
        return to_api_error(error).body()
    return _taken(weighed)


@router.get("/v1/feedback", openapi_extra=asks(FeedbackQuery))
async def list_feedback(request: Request) -> dict[str, Any]:
    """What people think now: everyone, or without the scope `review`, the caller and those for whom it rates.

    A rating shows when it has landed in the store, a moment after its 200.
    """
    gateway = gateway_of(request)
    reader = await gateway.auth.require(request, "rate", "review")
    query = read_query(request, FeedbackQuery)
    owner = _only(reader)
    after = query.after and await gateway.rater.find(query.after, reader.tenant, owner=owner, param="after")
    wanted = Filter(**query.model_dump(exclude={"after", "limit", "order"}), owner=owner)
    page = await gateway.rater.page(
        wanted, reader.tenant, limit=query.limit, after=after or None, order=query.order
    )
    data = [_public(rating) for rating in page.ratings]
    return {
        "object": "list",
        "data": data,
        "has_more": page.has_more,
        "first_id": data[0]["feedback_id"] if data else "",
        "last_id": data[-1]["feedback_id"] if data else "",
    }


@router.get("/v1/feedback/{feedback_id}")
async def retrieve_feedback(request: Request, feedback_id: str) -> dict[str, Any]:
    """What was said under this id, whether it still stands or not."""
    gateway = gateway_of(request)
    reader = await gateway.auth.require(request, "rate", "review")
    return _public(await gateway.rater.find(feedback_id, reader.tenant, owner=_only(reader)))


@router.delete("/v1/feedback/{feedback_id}")
async def withdraw_feedback(request: Request, feedback_id: str) -> dict[str, Any]:
    """Take back what the caller, or one of those for whom it rates, has said. The event stays, and counts no more.

    What has been withdrawn or superseded before is left as it is.
    """
    gateway = gateway_of(request)
    caller = await gateway.auth.require(request, "rate")
    await gateway.rater.withdraw(await gateway.rater.find(feedback_id, caller.tenant, owner=caller.owner))
    return {"feedback_id": feedback_id, "object": "feedback", "withdrawn": True}


def _only(reader: Key) -> str | None:
    return None if "review" in reader.scopes else reader.owner


def _taken(weighed: Weighed) -> dict[str, Any]:
    return {"feedback_id": weighed.rating.event_id, "matched": weighed.matched}


def _public(rating: Rating) -> dict[str, Any]:
    hidden = {"event_id", "schema_version", "tenant", "type"}
    return {
        "feedback_id": rating.event_id,
        "object": "feedback",
        **rating.model_dump(mode="json", exclude=hidden),
    }
