"""What the loop asks of a model: vLLM over HTTP in the gateway, a sampler in its own process in the trainer."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from feedback.events import Message, ModelCall, Sampling


@dataclass(frozen=True)
class ModelRequest:
    """One generation: the messages, the JSON schema that the text must follow (None: free), and how to sample."""

    messages: tuple[Message, ...]
    response_schema: dict[str, Any] | None
    sampling: Sampling


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

    def stream(self, request: ModelRequest) -> AsyncIterator[str | ModelCall]:
        """Yield the text in pieces as it comes, then one `ModelCall`, complete and exact. Raises `ModelError`."""
        ...
