"""`/v1/responses` for plain models: the request as the chat that vLLM is asked for.

OpenAI's fields are honoured, passed on in their chat form, or refused by name. Tools are functions, and the client runs
them: what the model wants called is in the answer, what came of it in the next request.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from feedback.events import Message, RequestFinished
from gateway.conversation import history
from gateway.openai_responses import ResponsesBody
from gateway.passthrough.request import ENDPOINTS, Asked, prepare
from gateway.response_input import chat_messages, check_calls
from gateway.response_items import input_ids
from gateway.wire import Body, Refused

_CHAT = ENDPOINTS["/v1/chat/completions"]
_CHOICES = ("none", "auto", "required")

FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class FunctionTool(Body):
    """A function that the client can run."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "allowed_callers": Refused("the model is the only one who calls; leave it out", (["direct"],)),
        "defer_loading": Refused("all tools are given to the model at once; leave it out", (False,)),
        "output_schema": Refused("what a function returns is not checked; leave it out"),
    }

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def sent(self) -> dict[str, Any]:
        """In the form of a chat request."""
        function = self.model_dump(exclude={"type"}, exclude_none=True)
        return {"type": "function", "function": function}


class ChosenFunction(Body):
    """The function that has to be called, one of the tools."""

    type: Literal["function"]
    name: str


class Reasoning(Body):
    """How the model reasons, where it does."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "context": Refused("the model reads what is in the input; leave it out", ("auto",)),
        "generate_summary": Refused("reasoning is shown whole, not summarised; leave it out"),
        "mode": Refused("there is one mode; leave it out"),
        "summary": Refused("reasoning is shown whole, not summarised; leave it out"),
    }
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class PlainResponsesRequest(ResponsesBody):
    """The body of `POST /v1/responses` for a plain model."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        **ResponsesBody.REFUSED,
        "max_tool_calls": Refused("the client runs all tools, and can count; leave it out"),
        "prompt": Refused("no prompts are stored here; send instructions"),
    }

    input: list[Any] = Field(min_length=1)
    reasoning: Reasoning | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    tools: tuple[FunctionTool, ...] = Field((), max_length=128, fail_fast=True)

    @field_validator("input", mode="before", json_schema_input_type=str | list[dict[str, Any]])
    @classmethod
    def _items(cls, value: Any) -> Any:
        return [{"role": "user", "content": value}] if isinstance(value, str) else value

    @field_validator("tools", mode="before", json_schema_input_type=list[FunctionTool] | None)
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return () if value is None else tuple(value) if isinstance(value, list) else value

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _a_choice(cls, value: Any) -> Any:
        named = isinstance(value, dict) and value.keys() == {"type", "name"} and value["type"] == "function"
        if value in (None, *_CHOICES) or (named and isinstance(value["name"], str)):
            return value
        raise ValueError('expected "none", "auto", "required" or {"type": "function", "name": "…"}')

    @model_validator(mode="after")
    def _something_to_choose(self) -> "PlainResponsesRequest":
        chosen = self.tool_choice
        names = [tool.name for tool in self.tools]
        if chosen == "required" and not names:
            raise ValueError("tool_choice is required, and there are no tools")
        if isinstance(chosen, ChosenFunction) and chosen.name not in names:
            raise ValueError(f"tool_choice names {chosen.name!r}, which is none of the tools")
        return self

    def asked(self, response_id: str, previous: RequestFinished | None, *, stored: bool) -> Asked:
        """The chat to ask vLLM for, and what must be kept to give the response again.

        `stored` False: nothing is recorded here, so `store` counts as false. Raises `ApiError` (400).
        """
        before, ids = history(previous)
        own = chat_messages(self.input)
        added = tuple(Message(**message) for message in own)
        check_calls((*before, *added))
        messages = [*(message.model_dump(mode="json") for message in before), *own]
        if self.instructions is not None:
            messages = [{"role": "system", "content": self.instructions}, *messages]
        asked = prepare(_CHAT, self._chat(messages))
        parameters = self._parameters() if stored else {**self._parameters(), "store": False}
        turn = self.turn((*ids, *input_ids(added, response_id)), **parameters)
        asked.turn = turn.model_dump()
        return asked

    def _chat(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": messages,
            "stream": self.stream,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_output_tokens,
            "response_format": self._response_format(),
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            **(self._offered() if self.tools else {}),
            "metadata": self.metadata,
            "user": self.user,
            "safety_identifier": self.safety_identifier,
            "prompt_cache_key": self.prompt_cache_key,
            "store": self.store,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _offered(self) -> dict[str, Any]:
        chosen = self.tool_choice
        if isinstance(chosen, ChosenFunction):
            choice: Any = {"type": "function", "function": {"name": chosen.name}}
        else:
            choice = chosen
        tools = [tool.sent() for tool in self.tools]
        return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": self.parallel_tool_calls}

    def _response_format(self) -> dict[str, Any] | None:
        form = self.format
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return {"type": "json_object"}
        schema = form.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
        return {"type": "json_schema", "json_schema": schema}

    def _parameters(self) -> dict[str, Any]:
        """What the response shows of the request, beside what all show."""
        chosen = self.tool_choice
        return {
            "reasoning": {"effort": self.reasoning.effort, "summary": None} if self.reasoning else None,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "tool_choice": chosen.model_dump() if isinstance(chosen, ChosenFunction) else chosen or "auto",
            "tools": [tool.model_dump() for tool in self.tools],
        }
