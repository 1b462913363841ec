"""An answer in an agent's form, as text and as an object."""

import json
from typing import Any


def format_answer(answer: dict[str, Any]) -> str:
    """An answer as the served grammar has it: JSON without blanks. What is taught must be what can be sampled."""
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def parse_answer(text: str) -> dict[str, Any] | None:
    """The structured answer in a model's text: a JSON object, or None when the text is not one (e.g. cut short)."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
