"""What people, agents and tools wrote, in the forms of the GenAI conventions. Exported only where that was opted in.

https://github.com/open-telemetry/semantic-conventions-genai, `gen-ai-input-messages.json` and its like.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from feedback.events import Message, ModelCall

_LIMIT = 16_384  # characters of one attribute: thousands of spans may wait in memory for a collector


def messages(items: Iterable[Message]) -> str:
    """An agent's messages, for `gen_ai.input.messages`."""
    return chat(item.model_dump() for item in items)


def chat(items: Iterable[Mapping[str, Any]]) -> str:
    """Messages as the OpenAI chat API has them. Of images, sounds and files, only that there are some."""
    return as_json([{"role": item.get("role", ""), "parts": list(_parts(item))} for item in items])


def answers(items: Iterable[tuple[str, str]]) -> str:
    """Answers and why each ended, for `gen_ai.output.messages`."""
    return as_json(
        [{"role": "assistant", "parts": [_text(text)], "finish_reason": reason} for text, reason in items]
    )


def generated(call: ModelCall) -> str:
    """What a model said in one call, the tools that it wants to be run included, for `gen_ai.output.messages`."""
    said = {"role": "assistant", "content": call.text or None, "tool_calls": call.tool_calls}
    return as_json([{"role": "assistant", "parts": list(_parts(said)), "finish_reason": call.finish_reason}])


def as_json(value: Any) -> str:
    """Any value as JSON. What is too long for a span is not cut to invalid JSON, but replaced by its length."""
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= _LIMIT else f'"{len(text)} characters: more than a span carries"'


def _parts(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    body = message.get("content")
    if message.get("role") == "tool":
        yield {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": body}
        return
    for part in [{"type": "text", "text": body}] if isinstance(body, str) else body or ():
        yield _text(part["text"]) if part.get("type") == "text" else {"type": part.get("type", "unknown")}
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        name, arguments = function.get("name", ""), function.get("arguments")
        yield {"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments}


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}
