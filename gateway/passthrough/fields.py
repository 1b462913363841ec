"""Every field of OpenAI's requests for plain models: passed to vLLM, honoured here, or refused by name.

After OpenAI's published description of its API, 2.3.0; a test compares the two. Some of vLLM's own sampling parameters
are passed as well. Values are checked as far as the record and the bounds need it; the rest is left to vLLM, which
answers 400 itself.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

Check = Callable[[Any], str | None]  # what is wrong with a value, in words; None: nothing


class Field(NamedTuple):
    """How a field is dealt with. `passed`: vLLM is sent it. `refused`: its complaint is that we do not have this."""

    check: Check
    passed: bool = True
    refused: bool = False


def number(low: float, high: float) -> Check:
    """From `low` to `high`, both included."""

    def check(value: Any) -> str | None:
        # type(), not isinstance: true and false are numbers to Python.
        return (
            None if type(value) in {int, float} and low <= value <= high else f"expected {low:g} to {high:g}"
        )

    return check


def integer(low: int, high: int) -> Check:
    """A whole number from `low` to `high`, both included."""

    def check(value: Any) -> str | None:
        fits = type(value) is int and low <= value <= high
        return None if fits else f"expected a whole number from {low} to {high}"

    return check


def one_of(*values: Any) -> Check:
    """One of few."""

    def check(value: Any) -> str | None:
        found = any(type(value) is type(known) and value == known for known in values)
        return None if found else f"expected one of {', '.join(map(repr, values))}"

    return check


def kind(*types: type) -> Check:
    """Any value of these types, to be looked at by vLLM."""

    def check(value: Any) -> str | None:
        names = {str: "a string", list: "a list", dict: "an object", bool: "true or false", int: "a number"}
        return None if type(value) in types else f"expected {' or '.join(names[one] for one in types)}"

    return check


def text(longest: int) -> Check:
    """A string of at most `longest` characters."""

    def check(value: Any) -> str | None:
        fits = type(value) is str and len(value) <= longest
        return None if fits else f"expected a string of at most {longest} characters"

    return check


def _stop(value: Any) -> str | None:
    values = [value] if isinstance(value, str) else value
    if isinstance(values, list) and len(values) <= 4 and all(isinstance(one, str) and one for one in values):
        return None
    return "expected a string, or a list of at most 4 strings"


def _metadata(value: Any) -> str | None:
    if not isinstance(value, dict) or len(value) > 16:
        return "expected an object of at most 16 pairs"
    for name, content in value.items():
        if not name or len(name) > 64 or not isinstance(content, str) or len(content) > 512:
            return "expected names of 1 to 64 characters and strings of at most 512"
    return None


def _stream_options(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "expected an object"
    for name, content in value.items():
        if name not in {"include_usage", "include_obfuscation"}:
            return f"{name} is unknown"
        if not isinstance(content, bool | None):
            return f"{name}: expected true or false"
    return "include_obfuscation is not available: send false" if value.get("include_obfuscation") else None


def _input(value: Any) -> str | None:
    fits = isinstance(value, str) or (isinstance(value, list) and 0 < len(value) <= 2_048)
    return None if fits else "expected a string, or a list of 1 to 2048 strings or token ids"


def _refused(why: str) -> Field:
    return Field(lambda _: why, passed=False, refused=True)


def _only(values: Collection[Any], *, why: str) -> Field:
    """Honoured by doing nothing where the value is one of these, refused otherwise."""
    allowed = one_of(*values)
    return Field(lambda value: why if allowed(value) else None, passed=False, refused=True)


def _here(check: Check) -> Field:
    return Field(check, passed=False)


_TOKENS = Field(integer(1, 1_000_000))
_PENALTY = Field(number(-2, 2))
_SAMPLED: Mapping[str, Field] = {
    "model": Field(text(200)),
    "temperature": Field(number(0, 2)),
    "top_p": Field(number(1e-9, 1)),
    "max_tokens": _TOKENS,
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    "logit_bias": Field(kind(dict)),
    "n": Field(integer(1, 128)),
    "seed": Field(integer(-(2**63), 2**63 - 1)),
    "stop": Field(_stop),
    "stream": Field(kind(bool)),
    "stream_options": _here(_stream_options),
    "user": _here(text(512)),
    # vLLM's own: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    "top_k": Field(integer(-1, 1_000_000)),
    "min_p": Field(number(0, 1)),
    "repetition_penalty": Field(number(1e-9, 10)),
    "min_tokens": Field(integer(0, 1_000_000)),
    "stop_token_ids": Field(kind(list)),
    "ignore_eos": Field(kind(bool)),
    "structured_outputs": Field(kind(dict)),
    "return_token_ids": Field(kind(bool)),
}
CHAT: Mapping[str, Field] = {
    **_SAMPLED,
    "messages": Field(kind(list)),
    "max_completion_tokens": _TOKENS,
    "logprobs": Field(kind(bool)),
    "top_logprobs": Field(integer(0, 20)),
    "response_format": Field(kind(dict)),
    "tools": Field(kind(list)),
    "tool_choice": Field(kind(str, dict)),
    "parallel_tool_calls": Field(kind(bool)),
    "reasoning_effort": Field(kind(str)),
    "chat_template_kwargs": Field(kind(dict)),
    "metadata": _here(_metadata),
    "store": _here(kind(bool)),
    "safety_identifier": _here(text(64)),
    "prompt_cache_key": _here(text(512)),
    "prompt_cache_retention": _only(("in_memory",), why="the prefix cache lives in memory only"),
    "prompt_cache_options": _refused("the prefix cache has no options"),
    "service_tier": _only(("auto", "default"), why="there is one tier, the default"),
    "modalities": _only((["text"],), why="this model writes text only"),
    "verbosity": _only(("medium",), why="this model has no levels of verbosity"),
    "audio": _refused("this model does not speak"),
    "prediction": _refused("predicted outputs are not available"),
    "web_search_options": _refused("this model does not search the web"),
    "moderation": _refused("there is no moderation"),
    "functions": _refused("it is deprecated: send tools"),
    "function_call": _refused("it is deprecated: send tool_choice"),
}
COMPLETIONS: Mapping[str, Field] = {
    **_SAMPLED,
    "prompt": Field(_input),
    "logprobs": Field(integer(0, 5)),
    "best_of": _only((1,), why="only n answers are generated: send n"),
    "echo": _only((False,), why="the prompt is not repeated"),
    "suffix": _refused("this model does not fill gaps"),
}
EMBEDDINGS: Mapping[str, Field] = {
    "model": _SAMPLED["model"],
    "input": Field(_input),
    "encoding_format": Field(one_of("float", "base64")),
    "dimensions": Field(integer(1, 100_000)),
    "user": _SAMPLED["user"],
}

_ROLES = {"system", "developer", "user", "assistant", "tool"}
_SIMPLE = {"role", "content"}  # most messages of most requests
_RECORDED = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "reasoning"}
_EMPTY_ONLY = {"audio", "function_call", "annotations"}  # what clients send back of an answer's own message
_PARTS: Mapping[str, Collection[str]] = {
    name: {"type", name} for name in ("text", "image_url", "input_audio", "file", "refusal")
}


def check_messages(messages: list[Any]) -> tuple[str, str] | None:
    """What is wrong with the messages: (field, complaint)."""
    if not messages:
        return "messages", "expected at least one message"
    for position, message in enumerate(messages):
        where = f"messages.{position}"
        if not isinstance(message, dict):
            return where, "expected an object"
        if message.get("role") not in _ROLES:
            return f"{where}.role", f"expected one of {', '.join(sorted(_ROLES))}"
        if message.keys() == _SIMPLE and type(message["content"]) is str and message["role"] != "tool":
            continue
        if not message.keys() <= _RECORDED and (found := _unknown(message)):
            return f"{where}.{found}", "unknown or unsupported: remove it"
        if (complaint := _check_content(message)) is not None:
            return f"{where}.{complaint[0]}", complaint[1]
    return None


def _unknown(message: dict[str, Any]) -> str | None:
    for name, value in message.items():
        if name not in _RECORDED and not (name in _EMPTY_ONLY and value in (None, [])):
            return name
    return None


def _check_content(message: dict[str, Any]) -> tuple[str, str] | None:
    content = message.get("content")
    if isinstance(content, list):
        for position, part in enumerate(content):
            known = _PARTS.get(str(part.get("type"))) if isinstance(part, dict) else None
            if known is None or not part.keys() <= known:
                extra = min(part.keys() - known) if known else "type"
                return f"content.{position}.{extra}", "unknown or unsupported"
    elif content is None:
        if not (message["role"] == "assistant" and (message.get("tool_calls") or message.get("refusal"))):
            return "content", "missing"
    elif not isinstance(content, str):
        return "content", "expected a string or a list of parts"
    return _check_calls(message)


def _check_calls(message: dict[str, Any]) -> tuple[str, str] | None:
    for name in ("name", "tool_call_id", "refusal", "reasoning"):
        if not isinstance(message.get(name), str | None):
            return name, "expected a string"
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        return "tool_calls", "expected a list of objects"
    if message["role"] == "tool" and not message.get("tool_call_id"):
        return "tool_call_id", "missing"
    return None
