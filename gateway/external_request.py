"""What may be asked of another provider's model: OpenAI's chat request, passed on as it is.

Of https://platform.openai.com/docs/api-reference/chat/create, everything that LiteLLM knows how to pass on.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.openai_chat import Metadata, MetadataValue, SafetyIdentifier, StreamOptions, recorded
from gateway.wire import Body

_OURS = {"model", "stream", "stream_options", "metadata", "user", "store"}  # not for the provider


class ExternalMessage(BaseModel):
    """A message in any form that OpenAI knows; the provider judges what is in it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "ExternalMessage":
        if self.content is None and self.role != "assistant":
            raise ValueError("only a message of the assistant may be without content")
        return self

    def text(self) -> str:
        """What is text in it."""
        if isinstance(self.content, list):
            return "\n".join(str(part["text"]) for part in self.content if "text" in part)
        return self.content or ""


class ExternalRequest(Body):
    """The body for a model of another provider: OpenAI's fields, passed on as they are.

    `metadata`, `user` and `store` are kept here, with the record of the request. The provider judges the values; a
    parameter that LiteLLM knows that it does not take is refused by name.
    """

    model: str = Field(min_length=1, max_length=200)
    messages: list[ExternalMessage] = Field(min_length=1, fail_fast=True)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=16)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    service_tier: str | None = None
    safety_identifier: SafetyIdentifier | None = None
    prompt_cache_key: str | None = None
    metadata: Metadata | None = None
    user: MetadataValue | None = None
    store: bool | None = None

    def sent(self) -> dict[str, Any]:
        """Everything that goes to the provider, but for its own name of the model."""
        return self.model_dump(exclude_none=True, exclude=_OURS)

    def recorded_metadata(self) -> dict[str, str]:
        """See `gateway.openai_chat.recorded`."""
        return recorded(
            self.metadata, user=self.user, safety_identifier=self.safety_identifier, store=self.store
        )
