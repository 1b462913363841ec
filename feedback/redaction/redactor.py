"""Goes through the texts of an event and replaces what the tenant's rules find.

Identifiers stay (ids, tenants, callers, raters, names of agents, tools and metrics): they say whose an event is, and
erasure finds it by them. Policy changes and erasures are operators' own words, and stay too.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json, to_json

from feedback.redaction.options import RedactionOptions, RedactionRules, compiled
from feedback.redaction.presidio import finders
from feedback.redaction.rules import BUILTIN, Find, matches

_LEAST_NUMBER = 10**8  # smaller ones are no card's, and no own pattern should have to fear every count
_LONGEST_TEXT = 20_000  # characters of a rating's texts: see `feedback.events.LongText`
_CALL_TEXTS = {
    "model": ("messages", "response_schema", "parameters", "text", "reasoning", "tool_calls"),
    "tool": ("arguments", "result", "error"),
    "external": ("request", "response"),
}
_IDENTIFY = {"id", "object", "created_at", "model", "status", "previous_response_id"}
_SPELL_TEXT = ("prompt_token_ids", "completion_token_ids", "logprobs", "tokens")

_Rules = Sequence[tuple[str, Find]]


class Redactor:
    """The rules of every tenant. What was found is neither logged nor kept; by which rules, the event says."""

    def __init__(self, options: RedactionOptions) -> None:
        """Raises `ValueError` for rules that cannot be followed here."""
        self._others = _compile(options)
        self._tenants = {name: _compile(rules) for name, rules in options.tenants.items()}

    @property
    def on(self) -> bool:
        """Whether anything is looked for, in anybody's texts."""
        return bool(self._others or any(self._tenants.values()))

    def event(self, body: bytes) -> bytes:
        """The event without what was found, marked as `redacted`; the same bytes where nothing was."""
        event: dict[str, Any] = from_json(body)
        rules = self._tenants.get(event["tenant"], self._others)
        if not rules:
            return body
        found: set[str] = set()
        if event["type"] == "request_finished":
            found = _request(event, rules)
        elif event["type"] == "rating":
            found = _rating(event, rules)
        if not found:
            return body
        event["redacted"] = sorted(found)
        return to_json(event)

    def response(self, response: dict[str, Any], tenant: str) -> dict[str, Any]:
        """A response of `/v1/responses` that is being made, as it may be kept until it has been recorded."""
        kept = dict(response)
        _Texts(self._tenants.get(tenant, self._others)).fields(kept, [*kept.keys() - _IDENTIFY])
        return kept


def _compile(given: RedactionRules) -> _Rules:
    own = [(name, matches(compiled(name, pattern))) for name, pattern in given.patterns.items()]
    rules = [*own, *((name, find) for name, find in BUILTIN.items() if name in given.rules)]
    return [*rules, *finders(given.presidio)] if given.presidio is not None else rules


def _request(event: dict[str, Any], rules: _Rules) -> set[str]:
    beside, told = _Texts(rules), _Texts(rules)
    beside.fields(event, ("metadata", "error"))
    if event.get("turn"):
        beside.fields(event["turn"], ("parameters",))
    told.messages(event["input"])
    told.fields(event, ("output",))
    if _prompt_is_unread(event):
        told.found.add("tokens")
    found = beside.found | told.found
    for call in event["calls"]:
        within = _call(call, rules)
        if call["kind"] == "model" and (within or told.found):
            call.update(dict.fromkeys(_SPELL_TEXT, ()))
        found |= within
    return found


def _prompt_is_unread(event: dict[str, Any]) -> bool:
    """Whether a prompt came as token ids: nobody here knows what text they spell."""
    if event["operation"] != "text_completion":
        return False
    prompts = {tuple(call["prompt_token_ids"]) for call in event["calls"]}
    return len(prompts) > len(event["input"])


def _call(call: dict[str, Any], rules: _Rules) -> set[str]:
    texts = _Texts(rules)
    texts.messages(call.get("messages", ()))
    texts.fields(call.get("sampling", {}), ("stop",))
    texts.fields(call, [name for name in _CALL_TEXTS[call["kind"]] if name != "messages"])
    return texts.found


def _rating(event: dict[str, Any], rules: _Rules) -> set[str]:
    texts = _Texts(rules)
    texts.fields(event, ("value", "correction", "comment", "tags"))
    for name in ("correction", "comment"):
        if texts.found and isinstance(event[name], str):
            event[name] = event[name][:_LONGEST_TEXT]  # a placeholder may be longer than what it stands for
    return texts.found


class _Texts:
    """Replaces, in place, and collects in `found` the names of the rules that found something."""

    def __init__(self, rules: _Rules) -> None:
        self.found: set[str] = set()
        self._rules = rules

    def fields(self, within: dict[str, Any], names: Sequence[str]) -> None:
        """The values of these fields, where they are."""
        for name in names:
            if within.get(name) is not None:
                within[name] = self.value(within[name])

    def messages(self, messages: Sequence[dict[str, Any]]) -> None:
        """All of each message but who speaks."""
        for message in messages:
            self.fields(message, [name for name in message if name != "role"])

    def value(self, value: Any, *, within_text: bool = False) -> Any:
        """Any JSON: its texts, the names in its objects, and long whole numbers, which then become texts."""
        if isinstance(value, str):
            return self._plain(value) if within_text else self._text(value)
        if isinstance(value, list):
            return [self.value(item, within_text=within_text) for item in value]
        if isinstance(value, dict):
            kept: dict[str, Any] = {}
            for name, item in value.items():
                kept[_unused(self._plain(name), kept)] = self.value(item, within_text=within_text)
            return kept
        if isinstance(value, int) and abs(value) >= _LEAST_NUMBER:
            shown = self._plain(str(value))
            return value if shown == str(value) else shown
        return value

    def _text(self, text: str) -> str:
        # Answers and the arguments of tools are JSON in a text: read as such, `\n` before an address is no n of it, and
        # what is written again is JSON still.
        if text.lstrip()[:1] in ("{", "["):
            try:
                inner = from_json(text)
            except ValueError:  # cut short, or no JSON after all
                return self._plain(text)
            kept = self.value(inner, within_text=True)
            return text if kept == inner else to_json(kept).decode()
        return self._plain(text)

    def _plain(self, text: str) -> str:
        for name, find in self._rules:
            parts: list[str] = []
            end = 0
            for start, after in sorted(find(text)):
                if start >= end:  # else it overlaps the one before it
                    parts += (text[end:start], f"[{name.upper()}]")
                    end = after
            if parts:
                self.found.add(name)
                text = "".join((*parts, text[end:]))
        return text


def _unused(name: str, taken: dict[str, Any]) -> str:
    """Two names that differed in what was replaced stay two."""
    unused, count = name, 1
    while unused in taken:
        count += 1
        unused = f"{name} {count}"
    return unused
