"""The vocabulary: everything that Flywheel remembers is one of four events.

`RequestFinished` is what an agent did, exactly as the model saw it; `Rating` is what a person thought of it;
`PolicyChanged` is what operators did about it; `Erased` is what must be forgotten. Events are immutable facts: none is
updated, a later event supersedes an earlier one. Readers accept every older `schema_version`.
"""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import uuid_utils
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    model_serializer,
    model_validator,
)

SCHEMA_VERSION: Final = 3
CLIENT_ID: Final = "client_id"  # the tag that holds `Rating.client_id`
SPAN_ID: Final = (
    "otel.span.id"  # in the metadata of a request of origin otlp, and in the tags of a rating of a span
)

Scalar = str | int | float | bool | None
ShortText = Annotated[str, Field(min_length=1, max_length=200)]
LongText = Annotated[str, Field(max_length=20_000)]


def new_id(prefix: str = "") -> str:
    """A time-ordered unique id (UUIDv7, RFC 9562), e.g. `new_id("chatcmpl-")`."""
    return f"{prefix}{uuid_utils.uuid7().hex}"


def span_id(name: str) -> str:
    """The span id that belongs to a name, in 16 hexadecimal digits: for a request, its id."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def to_utc(time: datetime) -> datetime:
    """The same instant. Raises `ValueError` where UTC has no such year."""
    try:
        return time.astimezone(UTC)
    except (
        OverflowError
    ) as error:  # year 9999 west of Greenwich; pydantic turns only ValueError into a ValidationError
        raise ValueError("the time in UTC is out of range") from error


class _Record(BaseModel):
    # JSON has no NaN or infinity: a record that held one could be written but never read again.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_OPTIONAL = ("name", "tool_calls", "tool_call_id", "refusal", "reasoning")


class Message(_Record):
    """One chat message of the OpenAI chat API.

    `content` is a text, or parts as the client sent them, or None where a message consists of tool calls only.
    `tool_calls` are the assistant's, in OpenAI's form; `tool_call_id` says which of them a message of the role `tool`
    answers. What is not set is not written.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[dict[str, Any], ...] | None
    name: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """What can be read: the content, or its text parts joined as vLLM joins them; else the empty string."""
        if isinstance(self.content, str):
            return self.content
        texts = (part.get("text") for part in self.content or ())
        return "\n".join(text for text in texts if isinstance(text, str))

    @model_serializer
    def _without_what_is_not_set(self) -> dict[str, Any]:
        written = {"role": self.role, "content": self.content}
        written.update((name, value) for name in _OPTIONAL if (value := getattr(self, name)))
        return written


class Sampling(_Record):
    """What, beside the weights, decided the distribution that the tokens were drawn from."""

    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(128, ge=1, description="None: as many as the context has room for.")
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Usage(_Record):
    """Tokens read and written, as a server counts them that does not say which they were."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class ModelCall(_Record):
    """One generation, with the server's own token ids: never re-tokenised, so that a trainer scores what was sampled.

    `logprobs[i]` belongs to `completion_token_ids[i]`: natural logarithm, at temperature 1, after the grammar of
    `response_schema` has masked what it forbids (so vLLM reports them). `tokens[i]` is how the server spells it; empty
    where it does not say. `parameters` is what else was sent and may have shaped the answer (tools, penalties, …), as
    it was sent. The prompt is `messages`, where there were any, and `prompt_token_ids` in any case. `finish_reason` is
    the server's; `abort` when the generation was cut short.

    Of a call that an application of others told us of, or of another provider's model, or in which something was
    redacted, there are no token ids and no log-probabilities: no trainer can score it. `usage` then says how many there
    were, where somebody has counted.
    """

    kind: Literal["model"] = "model"
    policy: str
    messages: tuple[Message, ...]
    response_schema: dict[str, Any] | None = None
    sampling: Sampling
    parameters: dict[str, Any] = {}
    text: str
    reasoning: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    tokens: tuple[str, ...] = ()
    usage: Usage | None = Field(None, exclude_if=lambda usage: usage is None)
    finish_reason: str
    started: Annotated[AwareDatetime, AfterValidator(to_utc)] | None = None  # None in older records
    time_to_first_token: float = Field(ge=0, description="Seconds.")
    latency: float = Field(ge=0, description="Seconds.")

    @property
    def tokens_read(self) -> int:
        """How many tokens the prompt was, by its ids or as somebody counted them."""
        return len(self.prompt_token_ids) if self.usage is None else self.usage.prompt_tokens

    @property
    def tokens_written(self) -> int:
        """How many tokens the answer was, by its ids or as somebody counted them."""
        return len(self.completion_token_ids) if self.usage is None else self.usage.completion_tokens

    @model_validator(mode="after")
    def _one_logprob_per_token(self) -> "ModelCall":
        if len(self.logprobs) != len(self.completion_token_ids):
            raise ValueError(f"{len(self.completion_token_ids)} tokens but {len(self.logprobs)} logprobs")
        if self.tokens and len(self.tokens) != len(self.completion_token_ids):
            raise ValueError(f"{len(self.completion_token_ids)} tokens but {len(self.tokens)} spelled")
        return self


class ToolCall(_Record):
    """One use of a tool (retrieval included): what was asked and what came back."""

    kind: Literal["tool"] = "tool"
    name: str
    arguments: dict[str, Any]
    result: Any = None
    error: str | None = None
    attempts: int = Field(1, ge=1)
    started: Annotated[AwareDatetime, AfterValidator(to_utc)] | None = None  # None in older records
    latency: float = Field(0.0, ge=0, description="Seconds.")


class ExternalCall(_Record):
    """One generation by another provider's model: what was asked and what came back.

    There are no token ids in it, for providers give none: no trainer can score it. `request` is the client's own,
    `response` a completion as OpenAI shapes it, put together where it was streamed; neither holds the provider's key.
    """

    kind: Literal["external"] = "external"
    model: str = Field(description="The configured model that answered, after fallbacks.")
    provider_model: str = Field(description="What the provider says has answered.")
    request: dict[str, Any]
    response: dict[str, Any]
    finish_reason: str
    time_to_first_token: float | None = Field(
        None, ge=0, description="Seconds; None when it was not streamed."
    )
    latency: float = Field(ge=0, description="Seconds.")


Call = Annotated[ModelCall | ToolCall | ExternalCall, Field(discriminator="kind")]
Status = Literal["completed", "failed", "cancelled"]


class _Event(_Record):
    event_id: str = Field(default_factory=new_id)
    schema_version: Literal[1, 2, 3] = SCHEMA_VERSION
    time: Annotated[AwareDatetime, AfterValidator(to_utc)] = Field(default_factory=lambda: datetime.now(UTC))
    tenant: ShortText = "default"


class Turn(_Record):
    """What `/v1/responses` gives back of a request, beside what is recorded of every request.

    `items` are the ids of what `RequestFinished.input` is to a client: of each message, and of the reasoning and the
    function calls in it. A message before them is the request's `instructions`. `parameters` are the other fields of
    the request, as they were understood. `output` says in which order the answer's items began, where a client has seen
    them begin.
    """

    model: str
    created: int = Field(description="Unix time in seconds.")
    previous_response_id: str | None = None
    items: tuple[str, ...]
    parameters: dict[str, Any]
    output: tuple[Literal["reasoning", "message", "function_call"], ...] = ()


class RequestFinished(_Event):
    """One request, whole: it is written when the answer is complete, before its last byte goes out.

    `agent` is the name that was asked: an agent's, or a plain model's. `operation` says by which endpoint. Of several
    choices `output` is the first; each has a `ModelCall` of its own, in their order. `origin` says who saw it happen:
    this gateway, or an application of others that told us by OpenTelemetry, whose calls have no token ids.
    `redacted` names the rules by which something in its texts was replaced before it was written: see
    `feedback.redaction`.
    """

    type: Literal["request_finished"] = "request_finished"
    origin: Literal["gateway", "otlp"] = "gateway"
    operation: Literal["chat", "responses", "text_completion", "embeddings"] = "chat"
    request_id: ShortText
    episode_id: ShortText
    trace_id: str | None = None
    agent: ShortText
    policy: ShortText
    caller: ShortText
    input: tuple[Message, ...]
    output: str | None
    status: Status
    error: str | None = None
    calls: tuple[Call, ...] = ()
    metadata: dict[str, str] = {}
    turn: Turn | None = Field(None, description="None where the request did not come by `/v1/responses`.")
    redacted: tuple[str, ...] = ()
    cost: float | None = Field(
        None, ge=0, description="US dollars paid to others; None: nothing, or not known."
    )
    latency: float = Field(ge=0, description="Seconds.")

    @property
    def span_id(self) -> str:
        """The id of its span: of ours, a client reads it in the `traceparent` of the answer."""
        given = self.metadata.get(SPAN_ID) if self.origin == "otlp" else None
        return given or span_id(self.request_id)


class Rating(_Event):
    """What one person thought of a request, of one call in it, or of a whole episode.

    A later rating by the same person on the same target and metric supersedes it; one without a value withdraws it.
    `value` is by the metric that the agent declares: true or false, a number, a category, or one of these for each
    part of a rubric. `correction` is the answer as it should have been, in one of three forms: a text; an answer by the
    agent's own response schema (e.g. `{"sql": …}` or `{"refusal": …}`); or `{"rows": [[…], …]}`, the rows that a right
    answer returns, for people who know the result but not the query. `redacted` is as in `RequestFinished`.
    """

    type: Literal["rating"] = "rating"
    rater: ShortText
    rater_kind: Literal["human", "model", "code"] = "human"
    source: ShortText = "api"
    request_id: ShortText | None = Field(None, description="None: it is about the whole episode.")
    call: int | None = Field(
        None, ge=0, description="Index in the request's `calls`; None: the whole request."
    )
    episode_id: str | None = None
    name: ShortText = "correct"
    value: bool | float | str | dict[ShortText, bool | float | str] | None = Field(
        description="None: withdrawn."
    )
    correction: dict[str, Any] | LongText | None = None
    comment: LongText | None = None
    tags: dict[str, str] = {}
    redacted: tuple[str, ...] = ()

    @property
    def withdrawn(self) -> bool:
        """Whether it only takes back what the rater said before."""
        return self.value is None

    def on_the_same(self, other: "Rating") -> bool:
        """Whether both are one person's word on one target and metric: the later one supersedes the other."""
        names = ["tenant", "rater", "name", "request_id", "call"]
        if self.request_id is None:  # else the episode is not always known
            names.append("episode_id")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    @property
    def client_id(self) -> str | None:
        """The id that the client chose for it, where it came by an API in which clients do."""
        return self.tags.get(CLIENT_ID)

    @model_validator(mode="after")
    def _about_something(self) -> "Rating":
        if self.request_id is None and not self.episode_id:
            raise ValueError("neither a request nor an episode is named")
        if self.request_id is None and self.call is not None:
            raise ValueError("a call without its request")
        return self


class Erased(_Event):
    """What a person asked, answered or said, or one request with all that was said of it, must be forgotten.

    It covers what is of this tenant and not later than `time`, wherever that still lies or is still under way. `person`
    is an owner of keys or a rater.
    """

    type: Literal["erased"] = "erased"
    person: ShortText | None = None
    request_id: ShortText | None = None
    by: ShortText
    reason: LongText = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> "Erased":
        if (self.person is None) == (self.request_id is None):
            raise ValueError("either a person or a request is erased")
        return self


PolicyState = Literal["candidate", "evaluated", "canary", "active", "retired", "rejected", "rolled_back"]


class PolicyChanged(_Event):
    """A policy entered a state: by whom, and on what evidence."""

    type: Literal["policy_changed"] = "policy_changed"
    agent: ShortText
    policy: ShortText
    state: PolicyState
    by: ShortText
    reason: LongText = ""
    path: str | None = Field(None, description="Directory of the checkpoint; None for the base model.")
    evidence: dict[str, Any] = {}


Event = Annotated[RequestFinished | Rating | PolicyChanged | Erased, Field(discriminator="type")]
AnyEvent = RequestFinished | Rating | PolicyChanged | Erased
_event: TypeAdapter[AnyEvent] = TypeAdapter(Event)


def parse(data: bytes | str) -> AnyEvent:
    """The event in a JSON document. Raises `pydantic.ValidationError`, which says what is wrong with it."""
    return _event.validate_json(data)


def episode_key(event: AnyEvent) -> str:
    """What keeps related events in order on a partitioned bus: the episode, the request, the agent, the person."""
    if isinstance(event, RequestFinished):
        return event.episode_id
    if isinstance(event, Rating):
        return event.episode_id or str(event.request_id)
    if isinstance(event, Erased):
        return str(event.person or event.request_id)
    return event.agent
