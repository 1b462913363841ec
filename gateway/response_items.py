"""The items of `/v1/responses`: what a client may put in, and what an agent's work looks like when it comes out.

An agent's retrieval comes out as a `file_search_call`, any other tool that it uses as an `mcp_call`: in OpenAI's API
these are the calls that the server makes, so that a client shows them and does not try to run them itself, as it would
with a `function_call`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from agents.loop import RETRIEVAL
from feedback.events import Call, Message, ToolCall
from gateway.openai_chat import logprob
from gateway.wire import Body

_OWN_CALL = re.compile(r"(fs|mcp)_[0-9a-f]{32}_\d+")
_TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}  # kind of part → where its text is
_BESIDE_TEXT = {"output_text": {"annotations", "logprobs"}}


class InputMessage(Body):
    """A message that a client puts in, in any of the forms of OpenAI's; what an answer's own item has is accepted."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str
    id: str | None = Field(None, max_length=200)
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: None = None

    @model_validator(mode="before")
    @classmethod
    def _a_message(cls, value: Any) -> Any:
        kind = value.get("type", "message") if isinstance(value, dict) else "message"
        if kind == "item_reference":
            raise ValueError("items are not looked up by reference: send the item, or previous_response_id")
        if kind != "message":
            named = f"of the type {kind[:50]!r}" if isinstance(kind, str) else "whose type is no text"
            raise ValueError(f"an agent reads messages and runs its tools itself: it takes no item {named}")
        return value

    @field_validator("content", mode="before", json_schema_input_type=str | list[dict[str, Any]])
    @classmethod
    def _join_text_parts(cls, value: Any) -> str:
        if isinstance(value, str):
            return value
        if not isinstance(value, list):
            raise ValueError("expected a string or a list of parts")  # noqa: TRY004  # pydantic catches ValueError only
        return "\n".join(map(_text, value))


def _text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    where = _TEXTS.get(kind) if isinstance(kind, str) else None
    if where is None or not {*part} <= {"type", where, *_BESIDE_TEXT.get(str(kind), ())}:
        raise ValueError('this agent reads text only: a part is {"type": "input_text", "text": "…"}')
    if not isinstance(part.get(where), str):
        raise ValueError(f"the {where} of a part must be a string")  # noqa: TRY004  # pydantic catches ValueError only
    return str(part[where])


def is_own_call(item: Any) -> bool:
    """Whether a client sends back the item of a tool call that it had from here.

    Nobody reads it: an agent retrieves anew for every question, and what it found before is in the record.
    """
    return (
        isinstance(item, dict)
        and item.get("type") in ("file_search_call", "mcp_call")  # it may be unhashable
        and _OWN_CALL.fullmatch(str(item.get("id"))) is not None
    )


def message_item(message: Message, item_id: str, *, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """A message of the conversation, complete."""
    if message.role == "assistant":
        part = {
            "type": "output_text",
            "text": message.text,
            "annotations": [],
            "logprobs": [logprob(token) for token in logprobs],
        }
    else:
        part = {"type": "input_text", "text": message.text}
    return {
        "id": item_id,
        "type": "message",
        "role": message.role,
        "status": "completed",
        "content": [part],
    }


def call_items(calls: Iterable[Call], request_id: str, agent: str, *, results: bool) -> list[dict[str, Any]]:
    """The tool calls among what an agent did, in order."""
    tools = [call for call in calls if isinstance(call, ToolCall)]
    return [
        call_item(call, f"{hexadecimal(request_id)}_{n}", agent, results=results)
        for n, call in enumerate(tools)
    ]


def call_item(call: ToolCall, name: str, agent: str, *, results: bool) -> dict[str, Any]:
    """A tool call that is over. `results`: with what a retrieval has found (`file_search_call.results`)."""
    if call.name == RETRIEVAL:
        return {
            "id": f"fs_{name}",
            "type": "file_search_call",
            "status": "completed" if call.error is None else "failed",
            "queries": [str(call.arguments.get("query", ""))],
            "results": _found(call) if results else None,
        }
    output = call.result if isinstance(call.result, str) else orjson.dumps(call.result).decode()
    return {
        "id": f"mcp_{name}",
        "type": "mcp_call",
        "status": "completed" if call.error is None else "failed",
        "server_label": agent,
        "name": call.name,
        "arguments": orjson.dumps(call.arguments).decode(),
        "output": output if call.error is None else None,
        "error": call.error and _mcp_error(call.error),
    }


def _mcp_error(message: str) -> dict[str, Any]:
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": message}]}


def hexadecimal(request_id: str) -> str:
    """What the ids of a response's items are made of."""
    return request_id.removeprefix("resp_")


def _found(call: ToolCall) -> list[dict[str, Any]]:
    """What was retrieved, as the contents of files: one "file" for each kind of knowledge, without a score."""
    digest = call.arguments.get("knowledge", "")
    found = call.result if isinstance(call.result, dict) else {}
    return [
        {"file_id": f"{digest}:{kind}", "filename": kind, "text": text, "attributes": {}}
        for kind, texts in found.items()
        for text in texts
    ]
