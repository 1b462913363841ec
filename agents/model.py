"""What the loop asks of a model: vLLM over HTTP in the gateway, a sampler in its own process in the trainer."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from feedback.events import Message, ModelCall, Sampling
from tools.tool import ToolSpec


@dataclass(frozen=True)
class ModelRequest:
    """One generation: the messages, the JSON schema that the text must follow (None: free), and how to sample.

    `tools` stand in the prompt whatever `tool_choice` says, so that the prompts of an episode begin alike.
    """

    messages: tuple[Message, ...]
    response_schema: dict[str, Any] | None
    sampling: Sampling
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"


class Token(NamedTuple):
    """A token as the model server spells it, and its natural logarithm of a probability."""

    text: str
    logprob: float


@dataclass(frozen=True)
class Delta:
    """A piece of the text, as it is generated; `tokens` is empty where the model does not say what it consists of.

    `final`: it is part of the answer. A model does not know and says so of everything; the loop says it of what is.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    final: bool = True


class ModelError(Exception):
    """The model did not answer. `status` is the HTTP status that fits (400: the request's fault; 503: ours)

    `code` is one of OpenAI's error codes (`context_length_exceeded`, `model_not_found`, `upstream_unavailable`, …).
    """

    def __init__(self, message: str, *, status: int = 503, code: str = "upstream_unavailable") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Model(Protocol):
    """A policy that can be called. `policy` is the immutable `agent@digest` that really answers."""

    policy: str

    def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        """Yield the text in pieces as it comes, then one `ModelCall`, complete and exact. Raises `ModelError`."""
        ...
