"""What may be asked of another provider's model: OpenAI's chat request, passed on as it is.

Of https://platform.openai.com/docs/api-reference/chat/create, everything that LiteLLM knows how to pass on.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.openai_chat import Metadata, MetadataValue, StreamOptions
from gateway.wire import Body

_OURS = {"model", "stream", "stream_options", "metadata", "user", "store"}  # not for the provider


class ExternalMessage(BaseModel):
    """A message in any form that OpenAI knows; the provider judges what is in it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]

    def text(self) -> str:
        """What is text in it."""
        content = self.model_dump().get("content")
        if isinstance(content, list):
            return "\n".join(
                str(part["text"]) for part in content if isinstance(part, dict) and "text" in part
            )
        return content if isinstance(content, str) else ""


class ExternalRequest(Body):
    """The body for a model of another provider: OpenAI's fields, passed on as they are.

    `metadata`, `user` and `store` are kept here, with the record of the request. The provider judges the values; a
    parameter that LiteLLM knows that it does not take is refused by name.
    """

    model: str = Field(min_length=1, max_length=200)
    messages: list[ExternalMessage] = Field(min_length=1, max_length=1_000, fail_fast=True)
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
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: Metadata | None = None
    user: MetadataValue | None = None
    store: bool | None = None

    def sent(self) -> dict[str, Any]:
        """Everything that goes to the provider, but for its own name of the model."""
        return self.model_dump(exclude_none=True, exclude=_OURS)

    def recorded_metadata(self) -> dict[str, str]:
        """See `gateway.openai_chat.ChatRequest.recorded_metadata`."""
        extra = {} if self.user is None else {"user": self.user}
        if self.store is False:
            extra["store"] = "false"
        return {**extra, **(self.metadata or {})}
