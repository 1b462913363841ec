"""OpenAI's chat format, in and out: https://platform.openai.com/docs/api-reference/chat.

Of the request, what an agent can honour; anything else is refused by name. `system_fingerprint` is the policy that
really answered, and `model` the name that was asked for.
"""

import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from agents.loop import Finished
from agents.manifest import Agent
from feedback.events import Message, ModelCall, Sampling
from gateway.errors import ApiError
from gateway.wire import Body

MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
_Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


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
    """Options of a streamed answer."""

    include_usage: bool | None = None


class ChatRequest(Body):
    """The body of `POST /v1/chat/completions`, as far as agents honour it."""

    model: str = Field(min_length=1, max_length=200)
    # fail_fast: a megabyte of wrong items must not cost seconds of collecting errors.
    messages: list[ChatMessage] = Field(min_length=1, max_length=1_000, fail_fast=True)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: tuple[Stop, ...] = Field((), max_length=4, fail_fast=True)
    n: Literal[1] | None = None
    metadata: Metadata | None = None
    user: MetadataValue | None = None
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

    @property
    def include_usage(self) -> bool:
        """Whether a streamed answer ends with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def input(self, agent: Agent) -> tuple[Message, ...]:
        """The messages for the loop. Raises `ApiError` (400) when they are longer than the agent takes."""
        size, limit = sum(len(message.content) for message in self.messages), agent.limits.input_characters
        if size > limit:
            message = f"The messages hold {size} characters; {agent.name} takes {limit}. Shorten them."
            raise ApiError(400, message, code="context_length_exceeded", param="messages")
        return tuple(Message(role=message.role, content=message.content) for message in self.messages)

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
        """The client's metadata, with `user`, and with `store: false`, so that curation can leave the request out."""
        extra = {} if self.user is None else {"user": self.user}
        if self.store is False:
            extra["store"] = "false"
        return {**extra, **(self.metadata or {})}


@dataclass(frozen=True)
class ChatFormat:
    """The answer's side, for one request."""

    request_id: str
    model: str
    policy: str
    include_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, finished: Finished) -> dict[str, Any]:
        """A whole answer."""
        message = {"role": "assistant", "content": finished.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(finished)}

    def first_chunk(self) -> dict[str, Any]:
        """Says who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def delta_chunk(self, text: str) -> dict[str, Any]:
        """A piece of the text."""
        return self._chunk({"content": text})

    def last_chunks(self, finished: Finished) -> list[dict[str, Any]]:
        """What says that the answer is complete; only to be sent when it has been recorded."""
        chunks = [self._chunk({}, finished.finish_reason)]
        if self.include_usage:
            chunks.append({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(finished)})
        return chunks

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self.include_usage else chunk

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.policy,
        }


def usage(finished: Finished) -> dict[str, int]:
    """Tokens that the model really read and wrote, over all calls of the request."""
    calls = [call for call in finished.calls if isinstance(call, ModelCall)]
    prompt = sum(len(call.prompt_token_ids) for call in calls)
    completion = sum(len(call.completion_token_ids) for call in calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
