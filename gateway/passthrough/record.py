"""The event of a request to a plain model, as bytes.

Written from plain dictionaries: validating an event of our own making would cost more than everything else that the
gateway does for a request. That these bytes are what `feedback.events.parse` reads is held by a test, in every mode.
"""

import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from feedback.events import SCHEMA_VERSION, Status, new_id
from feedback.store import Key
from gateway.passthrough.capture import Capture
from gateway.passthrough.request import Asked, parameters, response_schema, sampling
from gateway.trace import Trace

_ABORTED = "abort"


class Known(NamedTuple):
    """What is known of a request before it is answered: `started` by `time.perf_counter`, `started_ns` in Unix time."""

    request_id: str
    episode_id: str
    trace: Trace
    model: str
    policy: str
    caller: Key
    asked: Asked
    started: float
    started_ns: int


def encode(known: Known, status: Status, error: str | None, capture: Capture | None) -> bytes:
    """A `RequestFinished`. `capture` None: nothing has been generated, as far as is known."""
    now = time.perf_counter()
    latency = now - known.started
    asked = known.asked
    calls: list[dict[str, Any]] = []
    output = None
    turn = asked.turn
    if capture is not None and asked.choices:
        calls = _calls(known, capture, latency)
        output = (calls[0]["text"] or None) if calls else None
        if turn is not None:
            turn = {**turn, "output": capture.order}
    return orjson.dumps(
        {
            "event_id": new_id(),
            "schema_version": SCHEMA_VERSION,
            "time": datetime.now(UTC),
            "tenant": known.caller.tenant,
            "type": "request_finished",
            "operation": asked.endpoint.operation if turn is None else "responses",
            "request_id": known.request_id,
            "episode_id": known.episode_id,
            "trace_id": known.trace.trace_id,
            "agent": known.model,
            "policy": known.policy,
            "caller": known.caller.owner,
            "input": asked.messages,
            "output": output,
            "status": status,
            "error": error,
            "calls": calls,
            "metadata": asked.metadata,
            "turn": turn,
            "latency": latency,
        }
    )


def _calls(known: Known, capture: Capture, latency: float) -> list[dict[str, Any]]:
    begun = [choice for choice in capture.choices if choice.tokens or choice.finish_reason is not None]
    if not begun:
        return []
    asked = known.asked
    schema, drawn, others = (
        response_schema(asked.upstream),
        sampling(asked.upstream),
        parameters(asked.upstream),
    )
    started = datetime.fromtimestamp(known.started_ns / 1e9, UTC)
    # The prompt comes with one chunk only where several answers share it.
    shared_prompt = next((choice.prompt for choice in begun if choice.prompt), [])
    calls = []
    for choice in begun:
        tokens, logprobs, spelled = choice.tokens, choice.logprobs, choice.spelled
        if len(tokens) != len(logprobs):  # of an answer that was cut; a whole one has been checked
            exact = min(len(tokens), len(logprobs))
            tokens, logprobs, spelled = tokens[:exact], logprobs[:exact], spelled[:exact]
        calls.append(
            {
                "kind": "model",
                "policy": known.policy,
                "messages": asked.messages if asked.endpoint.operation == "chat" else (),
                "response_schema": schema,
                "sampling": drawn,
                "parameters": others,
                "text": "".join(choice.text),
                "reasoning": "".join(choice.reasoning) or None,
                "tool_calls": tuple(choice.tool_calls.values()),
                "prompt_token_ids": choice.prompt or shared_prompt,
                "completion_token_ids": tokens,
                "logprobs": logprobs,
                "tokens": spelled,
                "finish_reason": choice.finish_reason or _ABORTED,
                "started": started,
                "time_to_first_token": latency if capture.first is None else capture.first - known.started,
                "latency": latency,
            }
        )
    return calls
