"""How a request ended, in plain values: what spans and metrics are made of."""

from typing import Literal, NamedTuple

from agents.loop import RETRIEVAL
from feedback.events import ExternalCall, ModelCall, RequestFinished, Status, ToolCall

Operation = Literal["chat", "text_completion", "embeddings"]


class AgentOutcome(NamedTuple):
    """A request to an agent, from its arrival until it was recorded. `…_ns` are Unix times in nanoseconds."""

    event: RequestFinished
    model: str  # the name that was asked for: the agent's, or a pinned policy's
    served_name: str  # what the model server calls the policy
    started_ns: int
    seconds: float
    error: str | None = None  # a code, when it was not completed
    model_calls_ns: tuple[int, ...] = ()  # when each model call began, finished or not

    @property
    def calls(self) -> list[ModelCall | ToolCall]:
        """What the agent has done; models of other providers it cannot ask."""
        return [call for call in self.event.calls if not isinstance(call, ExternalCall)]

    @property
    def ended_ns(self) -> int:
        """When it was recorded."""
        return self.started_ns + round(self.seconds * 1e9)


class ModelOutcome(NamedTuple):
    """A request to a plain model. `model` and `policy` are names that are served, never what a client made up."""

    request_id: str
    episode_id: str
    operation: Operation
    model: str
    policy: str
    status: Status
    started_ns: int  # Unix time of the request's arrival, in nanoseconds
    seconds: float
    upstream_seconds: float = 0.0  # of them, spent waiting for the model server
    first_token_seconds: float | None = None  # since the arrival
    input_tokens: int = 0
    output_tokens: int = 0
    finish_reasons: tuple[str, ...] = ()
    error: str | None = None  # a code, when it was not completed
    provider: str = "vllm"  # of the model, in the words of the conventions: openai, anthropic, …

    @property
    def ended_ns(self) -> int:
        """When it was over."""
        return self.started_ns + round(self.seconds * 1e9)


def operation(call: ModelCall | ToolCall) -> Literal["chat", "retrieval", "execute_tool"]:
    """What the conventions call a thing that an agent does."""
    if isinstance(call, ModelCall):
        return "chat"
    return "retrieval" if call.name == RETRIEVAL else "execute_tool"
