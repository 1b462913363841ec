"""The items of `/v1/responses`: a conversation and an answer as OpenAI's clients see them.

A message of a model may be several items: what it reasoned, what it said, and each function that it calls, which the
client then runs. An agent's retrieval comes out as a `file_search_call`, any other tool that it uses as an `mcp_call`:
in OpenAI's API these are the calls that the server makes, so that a client shows them and does not try to run them
itself, as it would with a `function_call`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agents.loop import RETRIEVAL
from agents.model import Token
from feedback.events import Call, Message, ModelCall, ToolCall
from gateway.openai_chat import as_text, logprob

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def hexadecimal(request_id: str) -> str:
    """What the ids of a response's items are made of."""
    return request_id.removeprefix("resp_")


def input_ids(messages: Iterable[Message], response_id: str) -> tuple[str, ...]:
    """An id for each item of what a client has put in."""
    name = hexadecimal(response_id)
    kinds = [item["type"] for message in messages for item in items_of(message)]
    return tuple(f"{_PREFIXES[kind]}_{name}_{number}" for number, kind in enumerate(kinds))


def answer_id(kind: str, response_id: str, number: int = 0) -> str:
    """The id of an item of the answer; `number` counts the function calls in it."""
    name = f"{_PREFIXES[kind]}_{hexadecimal(response_id)}"
    return f"{name}_call_{number}" if kind == "function_call" else name


def answer_items(message: Message, response_id: str, tokens: Sequence[Token] = ()) -> list[dict[str, Any]]:
    """The items of an answer: reasoning, text, function calls. `tokens` are those of the text, to be shown with it."""
    items = items_of(message, tokens)
    first_call = len(items) - len(message.tool_calls)
    return [
        {"id": answer_id(item["type"], response_id, position - first_call), **item}
        for position, item in enumerate(items)
    ]


def items_of(message: Message, tokens: Sequence[Token] = ()) -> list[dict[str, Any]]:
    """A message of the conversation as items, complete but for their ids."""
    if message.role == "tool":
        output = message.content if isinstance(message.content, str) else _parts(message)
        answered = {"call_id": message.tool_call_id, "output": output}
        return [{"type": "function_call_output", "status": "completed", **answered}]
    items: list[dict[str, Any]] = []
    if message.reasoning:
        reasoned = [{"type": "reasoning_text", "text": message.reasoning}]
        items.append({"type": "reasoning", "status": "completed", "summary": [], "content": reasoned})
    if message.content is not None or message.refusal:
        content = _parts(message) if message.role != "assistant" else _said(message, tokens)
        items.append(
            {"type": "message", "role": message.role, "status": "completed", "content": content},
        )
    return items + [_function_call(call) for call in message.tool_calls]


def _said(message: Message, tokens: Sequence[Token]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if message.text or not message.refusal:
        logprobs = [logprob(token) for token in tokens]
        parts.append({"type": "output_text", "text": message.text, "annotations": [], "logprobs": logprobs})
    if message.refusal:
        parts.append({"type": "refusal", "refusal": message.refusal})
    return parts


def _parts(message: Message) -> list[dict[str, Any]]:
    """What a person or a tool says, in the form in which clients put it in."""
    if not isinstance(message.content, tuple):
        return [{"type": "input_text", "text": message.text}]
    return [_part(part) for part in message.content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    image = part["image_url"]
    return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}


def _function_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {
        "type": "function_call",
        "status": "completed",
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"],
    }


def call_items(calls: Iterable[Call], request_id: str, agent: str, *, results: bool) -> list[dict[str, Any]]:
    """What an agent did before it answered, in order: its tool calls, and what its model said beside them.

    The number in the id of an item is the index of its call, which a rating of that call names.
    """
    items: list[dict[str, Any]] = []
    asked: Iterator[dict[str, Any]] = iter(())
    for number, call in enumerate(calls):
        if isinstance(call, ModelCall) and call.tool_calls:
            asked = iter(call.tool_calls)
            if call.text:
                items.append(said_item(call.text, request_id, number))
        elif isinstance(call, ToolCall):
            written = None if call.name == RETRIEVAL else next(asked, None)
            arguments = None if written is None else written["function"]["arguments"]
            items.append(call_item(call, request_id, number, agent, arguments=arguments, results=results))
    return items


def said_item(text: str, request_id: str, number: int) -> dict[str, Any]:
    """What a model said before it called tools: not the answer, and shown as what led to it."""
    part = {"type": "reasoning_text", "text": text}
    name = f"rs_{hexadecimal(request_id)}_{number}"
    return {"id": name, "type": "reasoning", "status": "completed", "summary": [], "content": [part]}


def call_item(
    call: ToolCall, request_id: str, number: int, agent: str, *, arguments: str | None = None, results: bool
) -> dict[str, Any]:
    """A tool call that is over: `arguments` as the model wrote them, where it did.

    `results`: with what a retrieval has found (`file_search_call.results`).
    """
    name = f"{hexadecimal(request_id)}_{number}"
    status = "completed" if call.error is None else "failed"
    if call.name == RETRIEVAL:
        return {
            "id": f"fs_{name}",
            "type": "file_search_call",
            "status": status,
            "queries": [str(call.arguments.get("query", ""))],
            "results": _found(call) if results else None,
        }
    return {
        "id": f"mcp_{name}",
        "type": "mcp_call",
        "status": status,
        "server_label": agent,
        "name": call.name,
        "arguments": as_text(call.arguments) if arguments is None else arguments,
        "output": as_text(call.result) if call.error is None else None,
        "error": call.error and _mcp_error(call.error),
    }


def _mcp_error(message: str) -> dict[str, Any]:
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": message}]}


def _found(call: ToolCall) -> list[dict[str, Any]]:
    """What was retrieved, as the contents of files: one "file" for each kind of knowledge, without a score."""
    digest = call.arguments.get("knowledge", "")
    found = call.result if isinstance(call.result, dict) else {}
    return [
        {"file_id": f"{digest}:{kind}", "filename": kind, "text": text, "attributes": {}}
        for kind, texts in found.items()
        for text in texts
    ]
