"""The items that clients put into `/v1/responses`, and what becomes of them.

An agent reads messages, in any of their forms. A plain model reads all that a client with tools of its own keeps of a
conversation: messages, function calls and their outputs, reasoning. Chat templates want what a model did in one go as
one message, so its items are put together again.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from feedback.events import Message
from gateway.errors import ApiError
from gateway.wire import Body

_OWN_CALL = re.compile(r"(fs|mcp|rs)_[0-9a-f]{32}_\d+")
_TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}  # kind of part → where its text is
_BESIDE_TEXT = {"output_text": {"annotations", "logprobs"}}
_ROLES = ("system", "developer", "user", "assistant")
_READ: Mapping[str, frozenset[str]] = {  # of each kind of item, what a plain model is told of it
    "message": frozenset({"role", "content"}),
    "function_call": frozenset({"call_id", "name", "arguments"}),
    "function_call_output": frozenset({"call_id", "output"}),
    "reasoning": frozenset({"content", "summary"}),
}
_ECHOED = {"type", "id", "status"}  # clients send them back, and they say nothing
_DETAILS = ("low", "high", "auto", "original")


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
        raise ValueError('only text is read here: a part is {"type": "input_text", "text": "…"}')
    if not isinstance(part.get(where), str):
        raise ValueError(f"the {where} of a part must be a string")  # noqa: TRY004  # pydantic catches ValueError only
    return str(part[where])


def is_own_call(item: Any) -> bool:
    """Whether a client sends back the item of a tool call that it had from here, or what was said beside one.

    Nobody reads it: an agent looks anew for every question, and what it found before is in the record.
    """
    return (
        isinstance(item, dict)
        and item.get("type") in ("file_search_call", "mcp_call", "reasoning")  # it may be unhashable
        and _OWN_CALL.fullmatch(str(item.get("id"))) is not None
    )


def chat_messages(items: Iterable[Any]) -> list[dict[str, Any]]:
    """The items as messages of a chat. Raises `ApiError` (400), which names the item at fault."""
    messages: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        where = f"input.{number}"
        kind = _kind(item, where)
        message = _READERS[kind](item, where)
        last = messages[-1] if messages else {}
        if last.get("role") == "assistant" and kind == "function_call":
            last.setdefault("tool_calls", []).extend(message["tool_calls"])
        elif kind == "message" and message["role"] == "assistant" and _has_said_nothing(last):
            last.update(message)
        else:
            messages.append(message)
    for message in messages:
        if _has_said_nothing(message) and "tool_calls" not in message:
            raise _wrong("input", "behind a reasoning item, the message or the function calls are missing")
    return messages


def check_calls(messages: Iterable[Message]) -> None:
    """Every output belongs to a call before it, and every call has one. Raises `ApiError` (400)."""
    waiting: list[str | None] = []
    for message in messages:
        if message.role != "tool":
            waiting += [call["id"] for call in message.tool_calls]
        elif message.tool_call_id not in waiting:
            raise _wrong("input", f"there is no function call for the output of {message.tool_call_id!r}")
        else:
            waiting.remove(message.tool_call_id)
    if waiting:
        raise _wrong("input", f"the output of the function call with the call_id {waiting[0]!r} is missing")


def _kind(item: Any, where: str) -> str:
    """The type of an item that can be read, with nothing in it that is not."""
    if not isinstance(item, dict):
        raise _wrong(where, "expected an object")
    kind = item.get("type", "message")
    if kind == "item_reference":
        raise _wrong(where, "items are not looked up by reference: send the item, or previous_response_id")
    known = _READ.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise _wrong(f"{where}.type", f"expected one of {', '.join(_READ)}")
    for name, value in item.items():
        if name in _ECHOED:
            _text_of(item, name, where, optional=True)
        elif name not in known and value is not None:
            raise _wrong(f"{where}.{name}", "unknown or unsupported: remove it")
    return str(kind)


def _has_said_nothing(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "assistant" and message["content"] is None and "refusal" not in message


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in _ROLES:
        raise _wrong(f"{where}.role", f"expected one of {', '.join(_ROLES)}")
    content = item.get("content")
    if role != "assistant" or isinstance(content, str):
        return {"role": role, "content": _content(content, f"{where}.content")}
    said: dict[str, list[str]] = {"text": [], "refusal": []}
    for part in _list(content, f"{where}.content"):
        try:
            text = _text(part)
        except ValueError as error:
            raise _wrong(f"{where}.content", str(error)) from error
        said[_TEXTS[part["type"]]].append(text)
    joined = {name: "\n".join(texts) if texts else None for name, texts in said.items()}
    if not joined["refusal"]:
        return {"role": role, "content": joined["text"] or ""}
    return {"role": role, "content": joined["text"], "refusal": joined["refusal"]}


def _call(item: dict[str, Any], where: str) -> dict[str, Any]:
    function = {name: _text_of(item, name, where) for name in ("name", "arguments")}
    call = {"id": _text_of(item, "call_id", where), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _call_output(item: dict[str, Any], where: str) -> dict[str, Any]:
    content = _content(item.get("output"), f"{where}.output")
    return {"role": "tool", "tool_call_id": _text_of(item, "call_id", where), "content": content}


def _reasoning(item: dict[str, Any], where: str) -> dict[str, Any]:
    if item.get("summary"):
        raise _wrong(f"{where}.summary", "expected []: this model reads what it reasoned, and no summary")
    texts = []
    for part in _list(item.get("content"), f"{where}.content"):
        if not isinstance(part, dict) or part.keys() != {"type", "text"} or part["type"] != "reasoning_text":
            raise _wrong(f"{where}.content", 'expected {"type": "reasoning_text", "text": "…"}')
        texts.append(_text_of(part, "text", f"{where}.content"))
    return {"role": "assistant", "content": None, "reasoning": "\n".join(texts)}


def _content(value: Any, where: str) -> str | list[dict[str, Any]]:
    """Text where there is nothing else, joined as vLLM joins it; otherwise the parts of a chat message."""
    if isinstance(value, str):
        return value
    parts = [_part(part, f"{where}.{number}") for number, part in enumerate(_list(value, where))]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "input_text" and part.keys() == {"type", "text"}:
        return {"type": "text", "text": _text_of(part, "text", where)}
    if kind != "input_image" or not part.keys() <= {"type", "image_url", "detail", "file_id"}:
        raise _wrong(
            where, "expected a part of the type input_text, with text, or input_image, with image_url"
        )
    if part.get("file_id") is not None:
        raise _wrong(f"{where}.file_id", "there are no files here: send the image in image_url")
    image = {"url": _text_of(part, "image_url", where)}
    detail = part.get("detail")
    if detail is None:
        return {"type": "image_url", "image_url": image}
    if detail not in _DETAILS:
        raise _wrong(f"{where}.detail", f"expected one of {', '.join(_DETAILS)}")
    return {"type": "image_url", "image_url": {**image, "detail": detail}}


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _wrong(where, "expected a list of parts, or a string where that is allowed")
    return value


def _text_of(item: Mapping[str, Any], name: str, where: str, *, optional: bool = False) -> str:
    value = item.get(name)
    if isinstance(value, str) and (value or name in {"arguments", "text"} or optional):
        return value
    if value is None and optional:
        return ""
    raise _wrong(f"{where}.{name}", "expected a string" if value is not None else "missing")


def _wrong(where: str, complaint: str) -> ApiError:
    return ApiError(400, f"{where}: {complaint}.", code="invalid_value", param=where)


_READERS = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _call_output,
    "reasoning": _reasoning,
}
