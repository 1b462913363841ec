"""How a request ended, in plain values: what spans and metrics are made of."""

from typing import Literal, NamedTuple

from feedback.events import RequestFinished, Status

Operation = Literal["invoke_agent", "chat", "text_completion", "embeddings", "generate_content"]


class AgentOutcome(NamedTuple):
    """A request to an agent, from its arrival until it was recorded. `…_ns` are Unix times in nanoseconds."""

    event: RequestFinished
    model: str  # the name that was asked for: the agent's, or a pinned policy's
    served_name: str  # what the model server calls the policy
    started_ns: int
    seconds: float
    error: str | None = None  # a code, when it was not completed
    model_calls_ns: tuple[int, ...] = ()  # when each model call began, finished or not


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
