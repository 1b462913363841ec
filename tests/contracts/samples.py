"""Events to test with: valid, short, and overridden field by field."""

from datetime import UTC, datetime, timedelta
from typing import Any

from feedback.events import Message, ModelCall, PolicyChanged, PolicyState, Rating, RequestFinished, Sampling

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return EPOCH + timedelta(minutes=minutes)


def model_call(**fields: Any) -> ModelCall:
    return ModelCall.model_validate(
        {
            "policy": "sql-analyst@base",
            "messages": (Message(role="user", content="How many?"),),
            "sampling": Sampling(),
            "text": '{"sql": "SELECT 1"}',
            "prompt_token_ids": (1, 2, 3),
            "completion_token_ids": (4, 5),
            "logprobs": (-0.1, -0.2),
            "finish_reason": "stop",
            "time_to_first_token": 0.01,
            "latency": 0.02,
            **fields,
        }
    )


def request(request_id: str = "r1", question: str = "How many?", **fields: Any) -> RequestFinished:
    return RequestFinished.model_validate(
        {
            "request_id": request_id,
            "episode_id": f"e-{request_id}",
            "agent": "sql-analyst",
            "policy": "sql-analyst@base",
            "caller": "app",
            "input": (Message(role="user", content=question),),
            "output": '{"sql": "SELECT 1"}',
            "status": "completed",
            "calls": (model_call(),),
            "latency": 0.03,
            **fields,
        }
    )


def rating(request_id: str | None = "r1", value: Any = True, **fields: Any) -> Rating:
    return Rating.model_validate({"rater": "ann", "request_id": request_id, "value": value, **fields})


def change(policy: str, state: PolicyState, minutes: float = 0, **fields: Any) -> PolicyChanged:
    named = {"agent": "sql-analyst", "policy": policy, "state": state, "by": "ann", "time": at(minutes)}
    return PolicyChanged.model_validate({**named, **fields})
