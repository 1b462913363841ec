"""OpenAI's chat format, in and out: https://platform.openai.com/docs/api-reference/chat.

Of the request, what an agent can honour; anything else is refused by name. `system_fingerprint` is the policy that
really answered, and `model` the name that was asked for. A refusal in an agent's own form (`{"refusal": …}`) is its
answer and stands in `content`, where it is valid by the agent's schema; `message.refusal` is for a model that declines
to give an answer in the form that was asked for, which the grammar rules out.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from agents.acting import ToolStarted
from agents.loop import Finished
from agents.manifest import Agent
from agents.model import Delta, Token
from feedback.events import Call, Message, ModelCall, RequestFinished, Sampling, ToolCall
from gateway.answer_format import FormatKind, SchemaName, check_format
from gateway.errors import ApiError
from gateway.progress import Step
from gateway.sse import frame
from gateway.wire import Body, Refused

MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
SafetyIdentifier = Annotated[str, Field(max_length=64)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
_Tokens = Annotated[int, Field(ge=1, le=1_000_000)]

OWN_TOOLS = "an agent brings its own tools and runs them itself; leave it out"
ONE_TIER = Refused("there is one service tier; leave it out", ("auto", "default"))
NO_TOP_LOGPROBS = Refused(
    "only the tokens that were sampled are recorded, no alternatives; leave it out", (0,)
)
_PENALTY = Refused(
    "an agent samples from its policy as it was trained, without penalties; leave it out", (0,)
)


class TextPart(Body):
    """A part of a message's text."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """A message. What clients send back of an answer's own message (`refusal: null` and the like) is accepted empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    annotations: None = None

    @field_validator("content", mode="before", json_schema_input_type=str | list[TextPart])
    @classmethod
    def _join_text_parts(cls, value: Any) -> str:
        if isinstance(value, str):
            return value
        if not isinstance(value, list):
            raise ValueError("expected a string or a list of text parts")  # noqa: TRY004  # pydantic catches ValueError only
        texts = []
        for part in value:
            if not isinstance(part, dict) or part.keys() != {"type", "text"} or part["type"] != "text":
                raise ValueError(
                    'this agent reads text only: every part must be {"type": "text", "text": "…"}'
                )
            if not isinstance(part["text"], str):
                raise ValueError("the text of a part must be a string")  # noqa: TRY004  # pydantic catches ValueError only
            texts.append(part["text"])
        return "\n".join(texts)  # as vLLM joins them


class StreamOptions(Body):
    """Options of a streamed answer. OpenAI has no `include_steps`: see `ChatFormat`."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    include_steps: bool | None = Field(
        None, description="Tell of what the agent does, in `flywheel.step` of chunks without text."
    )


class JsonSchema(Body):
    """A schema with its name. `strict` changes nothing: an agent's own schema always binds."""

    name: SchemaName
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form that a client asks for: see `gateway.answer_format`."""

    type: FormatKind
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_where_named(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema, and the other way round")
        return self


class ChatRequest(Body):
    """The body of `POST /v1/chat/completions`, as far as agents honour it.

    `prompt_cache_key` needs nothing done: the model server finds cached prefixes by their content.
    """

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "audio": Refused("an agent answers in text; leave it out"),
        "frequency_penalty": _PENALTY,
        "function_call": Refused(OWN_TOOLS, ("none", "auto")),
        "functions": Refused(OWN_TOOLS, ([],)),
        "logit_bias": Refused("an agent samples from its policy as it was trained; leave it out", ({},)),
        "modalities": Refused('an agent answers in text; send ["text"] or leave it out', (["text"],)),
        "moderation": Refused("nothing is moderated here; leave it out"),
        "n": Refused("an agent gives one answer; for another, send the request again", (1,)),
        "prediction": Refused("an agent does not decode speculatively from a prediction; leave it out"),
        "presence_penalty": _PENALTY,
        "prompt_cache_options": Refused("the model server decides what it caches; leave it out"),
        "prompt_cache_retention": Refused("the model server decides what it caches; leave it out"),
        "reasoning_effort": Refused("an agent's policy answers without reasoning; leave it out", ("none",)),
        "service_tier": ONE_TIER,
        "tool_choice": Refused(OWN_TOOLS, ("none", "auto")),
        "tools": Refused(OWN_TOOLS, ([],)),
        "top_logprobs": NO_TOP_LOGPROBS,
        "verbosity": Refused("an agent was trained to one length of answer; leave it out", ("medium",)),
        "web_search_options": Refused("an agent searches its own knowledge only; leave it out"),
    }

    model: str = Field(min_length=1, max_length=200)
    # fail_fast: a megabyte of wrong items must not cost seconds of collecting errors.
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: tuple[Stop, ...] = Field((), max_length=4, fail_fast=True)
    logprobs: bool | None = None
    response_format: ResponseFormat | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    user: MetadataValue | None = None
    safety_identifier: SafetyIdentifier | None = None
    prompt_cache_key: MetadataValue | None = None
    store: bool | None = None

    @field_validator("stop", mode="before", json_schema_input_type=Stop | list[Stop] | None)
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> "ChatRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        if (
            None not in (self.max_tokens, self.max_completion_tokens)
            and self.max_tokens != self.max_completion_tokens
        ):
            raise ValueError("max_tokens and max_completion_tokens differ: send one of them")
        if not any(message.role == "user" for message in self.messages):
            raise ValueError("messages must hold at least one message with the role user")
        return self

    def input(self, agent: Agent) -> tuple[Message, ...]:
        """The messages for the loop. Raises `ApiError` (400) when they or the answer's form are not for this agent."""
        if self.response_format is not None:
            named = self.response_format.json_schema
            schema = None if named is None else named.schema_
            check_format(self.response_format.type, schema, agent, "response_format")
        messages = tuple(Message(role=message.role, content=message.content) for message in self.messages)
        check_size(messages, agent, "messages")
        return messages

    def sampling(self, agent: Agent) -> Sampling:
        """How to sample: greedy unless the client says otherwise, at most as many tokens as the agent's limit."""
        return Sampling(
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=self.max_completion_tokens or self.max_tokens or agent.limits.max_tokens,
            seed=self.seed,
            stop=self.stop,
        )

    def recorded_metadata(self) -> dict[str, str]:
        """See `recorded`."""
        return recorded(
            self.metadata, user=self.user, safety_identifier=self.safety_identifier, store=self.store
        )


def check_size(messages: tuple[Message, ...], agent: Agent, param: str) -> None:
    """Raises `ApiError` (400) when the messages are longer than the agent takes."""
    size, limit = sum(len(message.text) for message in messages), agent.limits.input_characters
    if size > limit:
        message = f"The messages hold {size} characters; {agent.name} takes {limit}. Shorten them."
        raise ApiError(400, message, code="context_length_exceeded", param=param)


def recorded(
    metadata: dict[str, str] | None, *, user: str | None, safety_identifier: str | None, store: bool | None
) -> dict[str, str]:
    """The client's metadata and what else says where a request comes from.

    `store: false` is kept under its name, whatever the client's own metadata say, so that curation leaves the request
    out.
    """
    extra = {"user": user, "safety_identifier": safety_identifier}
    kept = {**{name: value for name, value in extra.items() if value is not None}, **(metadata or {})}
    return {**kept, "store": "false"} if store is False else kept


@dataclass(frozen=True)
class ChatFormat:
    """The answer's side, for one request.

    A chat completion has no place for what an agent does before it answers, and no client expects it. Who asks for it
    by `stream_options.include_steps` gets it in chunks of its own, whose delta is empty, as `flywheel.step`: `call` is
    the call's index in the request, which a rating of it names; `status` is in_progress, completed or failed.
    """

    request_id: str
    policy: str
    body: ChatRequest
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, finished: Finished) -> dict[str, Any]:
        """A whole answer."""
        message = {"role": "assistant", "content": finished.text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(sampled(finished.calls)),
            "finish_reason": finished.finish_reason,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(finished.calls)}

    def start(self) -> bytes:
        """See `gateway.streaming.Form`."""
        return frame(self._chunk({"role": "assistant", "content": "", "refusal": None}))

    def piece(self, step: Step) -> bytes:
        """See `gateway.streaming.Form`."""
        part = step.part
        if not isinstance(part, Delta):
            told = {"flywheel": {"step": {"call": step.call, **_told(part)}}}
            return frame({**self._chunk({}), **told}) if self._options.include_steps else b""
        if not part.final or not (part.text or self.body.logprobs):
            return b""
        chunk = self._chunk({"content": part.text}, logprobs=self._logprobs(part.tokens))
        return frame(chunk, obfuscate=bool(self._options.include_obfuscation))

    def finish(self, answer: Finished, _event: RequestFinished) -> bytes:
        """See `gateway.streaming.Form`."""
        last = frame(self._chunk({}, answer.finish_reason))
        if self._options.include_usage:
            last += frame(
                {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(answer.calls)}
            )
        return last + b"data: [DONE]\n\n"

    def fail(self, problem: ApiError, _event: RequestFinished | None) -> bytes:
        """See `gateway.streaming.Form`."""
        return frame(problem.body())

    @property
    def _options(self) -> StreamOptions:
        return self.body.stream_options or StreamOptions()

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        return (
            {"content": [logprob(token) for token in tokens], "refusal": None} if self.body.logprobs else None
        )

    def _chunk(
        self, delta: dict[str, Any], finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self._options.include_usage else chunk

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.body.model,
            "service_tier": "default",
            "system_fingerprint": self.policy,
        }


def _told(part: ToolStarted | ToolCall) -> dict[str, Any]:
    """What a tool is asked, and what comes of it. Arguments and output are text, as OpenAI has them."""
    if isinstance(part, ToolStarted):
        return {"name": part.name, "status": "in_progress", "arguments": part.arguments}
    done = {"name": part.name, "arguments": as_text(part.arguments), "seconds": round(part.latency, 6)}
    if part.error is not None:
        return {**done, "status": "failed", "error": part.error}
    return {**done, "status": "completed", "output": as_text(part.result)}


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def sampled(calls: Iterable[Call]) -> list[Token]:
    """The tokens of the answer: those of the last call of the model. Empty where the server did not spell them."""
    answers = [call for call in calls if isinstance(call, ModelCall)]
    if not answers or not answers[-1].tokens:
        return []
    return [Token(*pair) for pair in zip(answers[-1].tokens, answers[-1].logprobs, strict=True)]


def logprob(token: Token) -> dict[str, Any]:
    """A token in OpenAI's form. The bytes are those of its text, as vLLM has them."""
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode()),
        "top_logprobs": [],
    }


def usage(calls: Iterable[Call]) -> dict[str, int]:
    """Tokens that the model really read and wrote, over all calls of the request."""
    made = [call for call in calls if isinstance(call, ModelCall)]
    prompt = sum(len(call.prompt_token_ids) for call in made)
    completion = sum(len(call.completion_token_ids) for call in made)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
