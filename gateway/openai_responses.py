"""The request of OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses/create.

Of its fields, what an agent can honour; anything else is refused by name. A conversation that goes on by
`previous_response_id` is rebuilt from the record of the response before, which holds all of it.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from agents.manifest import Agent
from feedback.events import Message, RequestFinished, Sampling, Turn
from gateway.answer_format import FormatKind, SchemaName, check_format
from gateway.errors import ApiError
from gateway.openai_chat import (
    NO_TOP_LOGPROBS,
    ONE_TIER,
    OWN_TOOLS,
    Metadata,
    MetadataValue,
    SafetyIdentifier,
    check_size,
    recorded,
)
from gateway.response_items import InputMessage, hexadecimal, is_own_call
from gateway.wire import Body, Refused

# What has nothing to add where no such item occurs is taken, as OpenAI takes it for a model without that tool.
Include = Literal[
    "message.output_text.logprobs",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
]


class TextFormat(Body):
    """The form that a client asks for: see `gateway.answer_format`. `strict` changes nothing, as in a chat request."""

    type: FormatKind
    name: SchemaName | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _schema_where_named(self) -> "TextFormat":
        if (self.type == "json_schema") != (self.schema_ is not None and self.name is not None):
            raise ValueError("name and schema belong to the type json_schema, and the other way round")
        return self


class TextOptions(Body):
    """What the answer's text should be like."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "verbosity": Refused("an agent was trained to one length of answer; leave it out", ("medium",)),
    }
    format: TextFormat | None = None


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_obfuscation: bool | None = None


class ResponsesRequest(Body):
    """The body of `POST /v1/responses`, as far as agents honour it.

    `prompt_cache_key` needs nothing done: the model server finds cached prefixes by their content.
    """

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "background": Refused(
            "an answer is made while the client waits, and there is no promise to finish it otherwise; leave it out",
            (False,),
        ),
        "context_management": Refused("an agent reads the whole conversation; leave it out"),
        "conversation": Refused("conversations go on by previous_response_id; leave it out"),
        "max_tool_calls": Refused("the agent's manifest says what it may do; leave it out"),
        "moderation": Refused("nothing is moderated here; leave it out"),
        "prompt": Refused("an agent has its own prompt; leave it out"),
        "prompt_cache_options": Refused("the model server decides what it caches; leave it out"),
        "prompt_cache_retention": Refused("the model server decides what it caches; leave it out"),
        "reasoning": Refused(
            "an agent's policy answers without reasoning; leave it out", ({}, {"effort": "none"})
        ),
        "service_tier": ONE_TIER,
        "tool_choice": Refused(OWN_TOOLS, ("auto",)),
        "tools": Refused(OWN_TOOLS, ([],)),
        "top_logprobs": NO_TOP_LOGPROBS,
        "truncation": Refused(
            "a conversation that is too long is refused, not cut; leave it out", ("disabled",)
        ),
    }

    model: str = Field(min_length=1, max_length=200)
    # None: a tool call of an earlier answer (see `is_own_call`), kept in its place so that errors count right.
    input: list[InputMessage | None] = Field(min_length=1, fail_fast=True)
    instructions: str | None = None
    previous_response_id: str | None = Field(None, max_length=200)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include: list[Include] | None = Field(None, max_length=32)
    text: TextOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_output_tokens: Annotated[int, Field(ge=16, le=1_000_000)] | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    user: MetadataValue | None = None
    safety_identifier: SafetyIdentifier | None = None
    prompt_cache_key: MetadataValue | None = None
    store: bool | None = None

    @field_validator("input", mode="before", json_schema_input_type=str | list[InputMessage])
    @classmethod
    def _items(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        if not isinstance(value, list):
            return value
        if None in value:
            raise ValueError("an item must not be null")
        return [None if is_own_call(item) else item for item in value]

    @model_validator(mode="after")
    def _consistent(self) -> "ResponsesRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    def includes(self, what: Include) -> bool:
        """Whether the client asked for this with its answer."""
        return what in (self.include or ())

    def conversation(
        self, agent: Agent, response_id: str, previous: RequestFinished | None
    ) -> tuple[tuple[Message, ...], Turn]:
        """The messages for the loop, and what must be kept to give the response again.

        Instructions hold for this response only, as in OpenAI's API. Raises `ApiError` (400) when the conversation
        asks nothing or is longer than the agent takes, or the form that is asked for is not the agent's.
        """
        if self._format is not None:
            check_format(self._format.type, self._format.schema_, agent, "text.format")
        history, ids = _history(previous)
        own = [message for message in self.input if message is not None]
        messages = (*history, *(Message(role=message.role, content=message.content) for message in own))
        items = (*ids, *(f"msg_{hexadecimal(response_id)}_{number}" for number in range(len(own))))
        if not any(message.role == "user" for message in messages):
            message = "The conversation must hold at least one message with the role user."
            raise ApiError(400, message, code="invalid_value", param="input")
        if self.instructions is not None:
            messages = (Message(role="system", content=self.instructions), *messages)
        check_size(messages, agent, "input")
        turn = Turn(
            model=self.model,
            created=int(time.time()),
            previous_response_id=self.previous_response_id,
            items=items,
            parameters=self._parameters(),
        )
        return messages, turn

    def sampling(self, agent: Agent) -> Sampling:
        """How to sample: greedy unless the client says otherwise, at most as many tokens as the agent's limit."""
        return Sampling(
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=self.max_output_tokens or agent.limits.max_tokens,
        )

    def recorded_metadata(self) -> dict[str, str]:
        """See `gateway.openai_chat.recorded`."""
        return recorded(
            self.metadata, user=self.user, safety_identifier=self.safety_identifier, store=self.store
        )

    @property
    def _format(self) -> TextFormat | None:
        return None if self.text is None else self.text.format

    def _parameters(self) -> dict[str, Any]:
        form = self._format
        said = {"user": self.user, "safety_identifier": self.safety_identifier}
        return {
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "prompt_cache_key": self.prompt_cache_key,
            "store": self.store is not False,
            "temperature": self.temperature or 0.0,
            "text": {
                "format": form.model_dump(by_alias=True, exclude_none=True) if form else {"type": "text"}
            },
            "top_p": 1.0 if self.top_p is None else self.top_p,
            **{name: value for name, value in said.items() if value is not None},
        }


def _history(previous: RequestFinished | None) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The conversation up to and with the answer before, and the ids of its items."""
    if previous is None or previous.turn is None:
        return (), ()
    items = previous.turn.items
    answer = Message(role="assistant", content=previous.output or "")
    answer_id = f"msg_{hexadecimal(previous.request_id)}"
    return (*previous.input[-len(items) :], answer), (*items, answer_id)
