"""Our own API's feedback: what is asked, and what is answered."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, field_validator, model_validator

from feedback.events import Rating, ShortText, to_utc
from feedback.store import Filter
from gateway.openai_chat import Metadata
from gateway.opinion import About, Opinion
from gateway.rating import Weighed
from gateway.wire import Body

MOST_ITEMS = 500
_MOST_CALLS = 100_000  # a rating that comes early may name any, and the store has to have room for it

_Text = Annotated[str, Field(min_length=1, max_length=20_000)]
_Scalar = bool | float | str


def _no_number(value: Any) -> Any:
    """Pydantic takes a number as well, for a Unix time."""
    if isinstance(value, str) and "-" not in value[1:]:
        raise ValueError("expected a time with its zone by RFC 3339, e.g. 2030-01-31T12:00:00Z")
    return value


_Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_no_number), AfterValidator(to_utc)]


class FeedbackRequest(Body):
    """The body of `POST /v1/feedback`: about a request, one `call` in it, or an episode."""

    request_id: ShortText | None = None
    call: Annotated[int, Field(ge=0, le=_MOST_CALLS)] | None = Field(
        None, description="Index in the request's calls, from 0."
    )
    episode_id: ShortText | None = None
    name: ShortText = "correct"
    value: _Scalar | dict[str, _Scalar] = Field(description="By the metric; of a rubric, one for each part.")
    correction: dict[str, Any] | _Text | None = None
    comment: str | None = Field(None, max_length=20_000)
    tags: Metadata | None = None
    source: ShortText = "api"
    rater: ShortText | None = Field(
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

    @field_validator("correction", mode="plain", json_schema_input_type=dict[str, Any] | _Text | None)
    @classmethod
    def _object_or_text(cls, value: Any) -> Any:
        if value is None or isinstance(value, dict) or (isinstance(value, str) and 0 < len(value) <= 20_000):
            return value
        raise ValueError("expected an object, or a text of 1 to 20000 characters")

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

    request_id: ShortText | None = None
    episode_id: ShortText | None = None
    agent: ShortText | None = None
    name: ShortText | None = None
    rater: ShortText | None = None
    source: ShortText | None = None
    since: _Time | None = Field(None, description="Included.")
    until: _Time | None = Field(None, description="Not included.")
    withdrawn: bool = Field(
        default=False, description="Those that were taken back, instead of those that stand."
    )
    after: ShortText | None = Field(None, description="The last feedback_id of the page before.")
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"

    def filter(self, owner: str | None) -> Filter:
        """Which ratings; with `owner`, only those by a key of this owner."""
        return Filter(**self.model_dump(exclude={"after", "limit", "order"}), owner=owner)


def taken(weighed: Weighed) -> dict[str, Any]:
    """The answer to a rating that has been recorded."""
    return {"feedback_id": weighed.rating.event_id, "matched": weighed.matched}


def shown(rating: Rating) -> dict[str, Any]:
    """A rating as it is given back."""
    hidden = {"event_id", "schema_version", "tenant", "type"}
    return {
        "feedback_id": rating.event_id,
        "object": "feedback",
        **rating.model_dump(mode="json", exclude=hidden),
    }
