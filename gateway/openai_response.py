"""The response object of OpenAI's Responses API, made from what was recorded.

The answer to the request, the last event of a stream and a later look-up give the same object: all are made here, from
the same record.
"""

from collections.abc import Sequence
from typing import Any

from feedback.events import ModelCall, RequestFinished, Turn
from feedback.store import Unfinished
from gateway.conversation import answer_of, instructions_of
from gateway.openai_chat import sampled, usage
from gateway.openai_responses import Include
from gateway.response_items import answer_items, call_items

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
    status = _status(event)
    results = "file_search_call.results" in wanted
    answered = _answered(event, turn, status, logprobs="message.output_text.logprobs" in wanted)
    ended = int(event.time.timestamp()) if status == "completed" else None
    shown = {
        **opened(event.request_id, turn, instructions_of(event)),
        "status": status,
        "completed_at": ended,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": [*call_items(event.calls, event.request_id, event.agent, results=results), *answered],
    }
    if event.error is not None and status == "failed":
        code, _, message = event.error.partition(": ")
        shown["error"] = error_object(code, message)
    # Of a call in which something was redacted the tokens are gone: what was used is not known any more.
    if any(isinstance(call, ModelCall) and call.prompt_token_ids for call in event.calls):
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


def unfinished_object(found: Unfinished) -> dict[str, Any]:
    """The response of which nothing has been recorded: in progress, or lost."""
    if not found.lost:
        return found.response
    message = "Nothing was recorded of it: its worker died, or had no space left on its disk. Send the request again."
    return {**found.response, "status": "failed", "error": error_object("worker_lost", message)}


def in_background(event: RequestFinished) -> bool:
    """Whether the client did not wait for it."""
    return event.turn is not None and event.turn.parameters.get("background") is True


def _status(event: RequestFinished) -> str:
    if (
        event.status == "cancelled"
        and in_background(event)
        and (event.error or "").startswith("shutting_down:")
    ):
        return "failed"  # to who looks it up, cancelled is what somebody asked to cancel
    last = event.calls[-1] if event.calls else None
    cut = isinstance(last, ModelCall) and last.finish_reason == "length"
    return "incomplete" if event.status == "completed" and cut else event.status


def _answered(event: RequestFinished, turn: Turn, status: str, *, logprobs: bool) -> list[dict[str, Any]]:
    """The items of the answer, as they began; of an answer that is not complete, the last one is not either."""
    message = answer_of(event)
    if message is None:
        return []
    # Which tokens are the text's, the record says only where all are.
    whole = not (message.tool_calls or message.reasoning)
    items = answer_items(message, event.request_id, sampled(event.calls) if logprobs and whole else ())
    for kind in turn.output:  # one after the other, the first that is left of its kind comes next
        item = next((item for item in items if item["type"] == kind), None)
        if item is not None:
            items.remove(item)
            items.append(item)
    if status != "completed":
        items[-1]["status"] = "incomplete"
    return items


def error_object(code: str, message: str) -> dict[str, str]:
    """Why there is no answer. What OpenAI has no code for is a `server_error`; the message says more."""
    return {"code": _ERROR_CODES.get(code, "server_error"), "message": message}


def _usage(event: RequestFinished) -> dict[str, Any]:
    """What was read and written. What a cache spared, and what of it was reasoning, is not known: 0."""
    counted = usage(event.calls)
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted["total_tokens"],
    }
