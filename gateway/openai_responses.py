"""The request of OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses/create.

Of its fields, what can be honoured: by whoever answers (`ResponsesBody`), and by an agent (`ResponsesRequest`); plain
models have `gateway.plain_responses`. Anything else is refused by name. A conversation that goes on by
`previous_response_id` is rebuilt from the record of the response before, which holds all of it.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from agents.manifest import Agent
from feedback.events import Message, RequestFinished, Sampling, Turn
from gateway.answer_format import FormatKind, SchemaName, check_format
from gateway.conversation import history
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
from gateway.response_input import InputMessage, is_own_call
from gateway.response_items import input_ids
from gateway.wire import Body, Refused, unsupported

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
    """The form that a client asks for. To an agent see `gateway.answer_format`; `strict` changes nothing there."""

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
        "verbosity": Refused("there are no levels of verbosity; leave it out", ("medium",)),
    }
    format: TextFormat | None = None


class ResponseStreamOptions(Body):
    """Options of a streamed answer."""

    include_obfuscation: bool | None = None


class ResponsesBody(Body):
    """What may be asked of agents and plain models alike. What is refused here, neither can do.

    `prompt_cache_key` needs nothing done for an agent: the model server finds cached prefixes by their content.
    """

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "context_management": Refused("the whole conversation is read; leave it out"),
        "conversation": Refused("conversations go on by previous_response_id; leave it out"),
        "moderation": Refused("nothing is moderated here; leave it out"),
        "prompt_cache_options": Refused("the model server decides what it caches; leave it out"),
        "prompt_cache_retention": Refused("the model server decides what it caches; leave it out"),
        "service_tier": ONE_TIER,
        "top_logprobs": NO_TOP_LOGPROBS,
        "truncation": Refused(
            "a conversation that is too long is refused, not cut; leave it out", ("disabled",)
        ),
    }

    model: str = Field(min_length=1, max_length=200)
    instructions: str | None = None
    previous_response_id: str | None = Field(None, max_length=200)
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        if self.background and self.stream:
            raise unsupported(
                "stream", "a response in the background is looked up when it is over; leave it out"
            )
        if self.background and self.store is False:
            raise unsupported(
                "store", "a response in the background is looked up, so it has to be stored; leave it out"
            )
        return self

    def includes(self, what: Include) -> bool:
        """Whether the client asked for this with its answer."""
        return what in (self.include or ())

    @property
    def obfuscate(self) -> bool:
        """Whether the events are to be filled up: see `gateway.sse.frame`."""
        return bool(self.stream_options and self.stream_options.include_obfuscation)

    @property
    def format(self) -> TextFormat | None:
        """The form that is asked for, if any."""
        return None if self.text is None else self.text.format

    def turn(self, items: tuple[str, ...], **parameters: Any) -> Turn:
        """What must be kept to give the response again; `parameters` are those fields that not all have."""
        said = {"user": self.user, "safety_identifier": self.safety_identifier}
        form = self.format
        return Turn(
            model=self.model,
            created=int(time.time()),
            previous_response_id=self.previous_response_id,
            items=items,
            parameters={
                "background": self.background is True,
                "max_output_tokens": self.max_output_tokens,
                "metadata": self.metadata or {},
                "parallel_tool_calls": self.parallel_tool_calls is not False,
                "prompt_cache_key": self.prompt_cache_key,
                "store": self.store is not False,
                "text": {
                    "format": form.model_dump(by_alias=True, exclude_none=True) if form else {"type": "text"}
                },
                "top_p": 1.0 if self.top_p is None else self.top_p,
                **{name: value for name, value in said.items() if value is not None},
                **parameters,
            },
        )


class ResponsesRequest(ResponsesBody):
    """The body of `POST /v1/responses`, as far as agents honour it."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        **ResponsesBody.REFUSED,
        "max_tool_calls": Refused("the agent's manifest says what it may do; leave it out"),
        "prompt": Refused("an agent has its own prompt; leave it out"),
        "reasoning": Refused(
            "an agent's policy answers without reasoning; leave it out", ({}, {"effort": "none"})
        ),
        "tool_choice": Refused(OWN_TOOLS, ("auto",)),
        "tools": Refused(OWN_TOOLS, ([],)),
    }

    # None: a tool call of an earlier answer (see `is_own_call`), kept in its place so that errors count right.
    input: list[InputMessage | None] = Field(min_length=1, fail_fast=True)

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

    def conversation(
        self, agent: Agent, response_id: str, previous: RequestFinished | None
    ) -> tuple[tuple[Message, ...], Turn]:
        """The messages for the loop, and what must be kept to give the response again.

        Raises `ApiError` (400) when the conversation asks nothing, is longer than the agent takes or not for agents, or
        the form that is asked for is not the agent's.
        """
        if self.format is not None:
            check_format(self.format.type, self.format.schema_, agent, "text.format")
        before, ids = history(previous)
        if any(one != Message(role=one.role, content=one.text) for one in before):
            message = "What a plain model read or did is in this conversation, and no text: an agent reads text only."
            raise ApiError(400, message, code="invalid_value", param="previous_response_id")
        own = tuple(Message(role=one.role, content=one.content) for one in self.input if one is not None)
        messages = (*before, *own)
        if not any(message.role == "user" for message in messages):
            message = "The conversation must hold at least one message with the role user."
            raise ApiError(400, message, code="invalid_value", param="input")
        if self.instructions is not None:
            messages = (Message(role="system", content=self.instructions), *messages)
        check_size(messages, agent, "input")
        items = (*ids, *input_ids(own, response_id))
        return messages, self.turn(items, temperature=self.temperature or 0.0)

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
