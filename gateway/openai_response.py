"""The response object of OpenAI's Responses API, made from what was recorded.

The answer to the request, the last event of a stream and a later look-up give the same object: all are made here, from
the same record.
"""

from collections.abc import Sequence
from typing import Any

from agents.model import Token
from feedback.events import Message, ModelCall, RequestFinished, Turn
from gateway.openai_chat import sampled, usage
from gateway.openai_responses import Include
from gateway.response_items import call_items, hexadecimal, message_item

_ERROR_CODES = {
    "context_length_exceeded": "invalid_prompt",
    "invalid_value": "invalid_prompt",
    "too_many_requests": "rate_limit_exceeded",
}
_SAME_FOR_ALL: dict[str, Any] = {
    "background": False,
    "max_tool_calls": None,
    "reasoning": None,
    "service_tier": "default",
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "truncation": "disabled",
}


def response_object(event: RequestFinished, include: Sequence[Include] | None = None) -> dict[str, Any]:
    """The response that a request of `/v1/responses` was given, with what `include` asks for."""
    turn, wanted = event.turn, include or ()
    assert turn is not None, "the request came by another API"
    status, incomplete = _status(event), None
    if status == "incomplete":
        incomplete = {"reason": "max_output_tokens"}
    output = call_items(
        event.calls, event.request_id, event.agent, results="file_search_call.results" in wanted
    )
    if event.output is not None:
        tokens = sampled(event.calls) if "message.output_text.logprobs" in wanted else []
        output.append(answer_item(event.request_id, event.output, status, tokens))
    instructions = event.input[0].text if len(event.input) > len(turn.items) else None
    ended = int(event.time.timestamp()) if status == "completed" else None
    shown = {
        **opened(event.request_id, turn, instructions),
        "status": status,
        "completed_at": ended,
        "incomplete_details": incomplete,
        "output": output,
    }
    if event.error is not None and status == "failed":
        code, _, message = event.error.partition(": ")
        shown["error"] = error_object(code, message)
    if any(isinstance(call, ModelCall) for call in event.calls):
        shown["usage"] = _usage(event)
    return shown


def opened(response_id: str, turn: Turn, instructions: str | None) -> dict[str, Any]:
    """The response before anything has been done for it."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": turn.created,
        "completed_at": None,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": instructions,
        "model": turn.model,
        "output": [],
        "previous_response_id": turn.previous_response_id,
        **_SAME_FOR_ALL,
        **turn.parameters,
    }


def input_items(event: RequestFinished) -> list[dict[str, Any]]:
    """The conversation that the response answers, oldest first: that of the responses before it included."""
    assert event.turn is not None, "the request came by another API"
    items = event.turn.items
    messages = event.input[-len(items) :]
    return [message_item(message, item_id) for message, item_id in zip(messages, items, strict=True)]


def _status(event: RequestFinished) -> str:
    last = event.calls[-1] if event.calls else None
    cut = isinstance(last, ModelCall) and last.finish_reason == "length"
    return "incomplete" if event.status == "completed" and cut else event.status


def answer_item(response_id: str, text: str, status: str, tokens: Sequence[Token] = ()) -> dict[str, Any]:
    """The answer as an output item; anything but a completed answer is incomplete."""
    message = Message(role="assistant", content=text)
    item = message_item(message, f"msg_{hexadecimal(response_id)}", logprobs=tokens)
    return {**item, "status": "completed" if status == "completed" else "incomplete"}


def error_object(code: str, message: str) -> dict[str, str]:
    """Why there is no answer. What OpenAI has no code for is a `server_error`; the message says more."""
    return {"code": _ERROR_CODES.get(code, "server_error"), "message": message}


def _usage(event: RequestFinished) -> dict[str, Any]:
    """What was read and written. What a cache spared is not known for each request, and no policy reasons: 0."""
    counted = usage(event.calls)
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted["total_tokens"],
    }
