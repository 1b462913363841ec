"""What people, agents and tools wrote, in the forms of the GenAI conventions. Exported only where that was opted in.

https://github.com/open-telemetry/semantic-conventions-genai, `gen-ai-input-messages.json` and its like.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from feedback.events import Message

_LIMIT = 16_384  # characters of one attribute: thousands of spans may wait in memory for a collector


def messages(items: Iterable[Message]) -> str:
    """Chat messages, for `gen_ai.input.messages`."""
    return as_json([{"role": item.role, "parts": _text(item.content)} for item in items])


def answer(text: str, finish_reason: str) -> str:
    """An answer, for `gen_ai.output.messages`."""
    return as_json([{"role": "assistant", "parts": _text(text), "finish_reason": finish_reason}])


def as_json(value: Any) -> str:
    """Any value as JSON. What is too long for a span is not cut to invalid JSON, but replaced by its length."""
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= _LIMIT else f'"{len(text)} characters: more than a span carries"'


def _text(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "content": content}]
