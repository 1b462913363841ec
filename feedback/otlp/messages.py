"""Messages as instrumentations write them → messages as we record them.

Three forms are read: that of the conventions (`parts`; `gen-ai-input-messages.json` and its like), that of the OpenAI
chat API, and the flat attributes `gen_ai.prompt.0.role`, … of OpenLLMetry.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args

from feedback.events import Message
from feedback.otlp.wire import structured, text

Role = Literal["system", "developer", "user", "assistant", "tool"]
_ROLES: Final[Mapping[str, Role]] = {
    **{role: role for role in get_args(Role)},
    "human": "user",
    "ai": "assistant",
    "model": "assistant",
    "function": "tool",
}
_FLAT = re.compile(r"gen_ai\.(?:prompt|completion)\.(\d{1,4})\.(\w+)(?:\.(\d{1,4})\.(\w+))?")


def messages(given: Any, role: Role = "user") -> tuple[Message, ...]:
    """All that was said; of whom it is not told, by `role`."""
    given = structured(given)
    if given is None:
        return ()
    items = given if isinstance(given, list) else [given]
    if items and all(isinstance(item, dict) and "type" in item and "role" not in item for item in items):
        items = [{"parts": items}]  # the parts of one message, as `gen_ai.system_instructions` has them
    return tuple(message for item in items for message in _messages(item, role))


def flat(said: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """The messages that are spread over attributes with this prefix."""
    found: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in said.items():
        match = _FLAT.fullmatch(name) if name.startswith(prefix) else None
        if match is None:
            continue
        message = found[int(match[1])]
        if match[3] is None:
            message[match[2]] = value
        else:
            calls = message.setdefault(f"{match[2]}_", defaultdict(dict))
            calls[int(match[3])][match[4]] = value
    for message in found.values():
        for name in [name for name in message if name.endswith("_")]:
            by_number = message.pop(name)
            message[name[:-1]] = [by_number[number] for number in sorted(by_number)]
    return [found[number] for number in sorted(found)]


def finish_reasons(given: Any) -> list[str]:
    """Why each answer ended, where the messages say so."""
    items = given if isinstance(given := structured(given), list) else [given]
    reasons = [item.get("finish_reason") for item in items if isinstance(item, dict)]
    return [text(reason) for reason in reasons if reason is not None]


def _messages(item: Any, role: Role) -> Iterator[Message]:
    if not isinstance(item, dict):
        yield Message(role=role, content=text(item))
        return
    said = str(item.get("role") or "")
    speaker = _ROLES.get(said.lower(), role)
    name = item.get("name") or (said if said and said.lower() not in _ROLES else None)
    content: list[dict[str, Any]] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    answered = False
    for part in _parts(item, speaker):
        kind = part.get("type")
        if kind == "text":
            content.append({"type": "text", "text": text(part.get("content", part.get("text", "")))})
        elif kind in ("reasoning", "thinking"):
            reasoning.append(text(part.get("content", part.get("text", ""))))
        elif kind == "tool_call":
            calls.append(_call(part))
        elif kind == "tool_call_response":
            answered = True
            about = part.get("id")
            back = part.get("response", part.get("result"))
            yield Message(
                role="tool",
                content="" if back is None else text(back),
                tool_call_id=None if about is None else text(about),
            )
        else:
            content.append(part)
    if content or calls or reasoning or not answered:
        yield Message(
            role=speaker,
            content=_joined(content, without=None if calls else ""),
            name=None if name is None else text(name),
            tool_calls=tuple(calls),
            reasoning="\n".join(reasoning) or None,
        )


def _parts(item: dict[str, Any], speaker: Role) -> Iterator[dict[str, Any]]:
    """The parts, whichever form the message has."""
    given = structured(item.get("parts", item.get("content")))
    if speaker == "tool" and "parts" not in item:
        yield {
            "type": "tool_call_response",
            "id": item.get("tool_call_id", item.get("id")),
            "response": given,
        }
        return
    for part in given if isinstance(given, list) else [] if given is None else [given]:
        yield part if isinstance(part, dict) else {"type": "text", "content": part}
    calls = structured(item.get("tool_calls"))
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            yield {**call, "type": "tool_call"}
        else:
            yield {"type": "text", "content": call}


def _call(part: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI writes it, from its own form or from the conventions'."""
    function = part["function"] if isinstance(part.get("function"), dict) else part
    arguments = function.get("arguments")
    called = {"name": function.get("name"), "arguments": "" if arguments is None else text(arguments)}
    return {"id": part.get("id"), "type": "function", "function": called}


def _joined(content: list[dict[str, Any]], *, without: str | None) -> str | tuple[dict[str, Any], ...] | None:
    if not content:
        return without
    if all(part.keys() == {"type", "text"} and part["type"] == "text" for part in content):
        return "\n".join(part["text"] for part in content)
    return tuple(content)
