"""From a client's request to a plain model to what vLLM is sent, and what the record needs to know of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.errors import ApiError
from gateway.metering import UNSAID_TOKENS
from gateway.openai_chat import recorded
from gateway.passthrough import fields
from gateway.passthrough.fields import Field

Operation = Literal["chat", "text_completion", "embeddings"]

# What an absent parameter means in OpenAI's API. Sent, because vLLM would take the model's own defaults instead, and
# the record could not say by what the tokens were drawn.
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_SAMPLING = {"temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop"}
# Not a parameter of the distribution, or recorded elsewhere.
_BESIDE = {"model", "messages", "prompt", "stream", "logprobs", "top_logprobs", "return_token_ids"}
_PREFIX = 512  # characters


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of OpenAI's paths. `required` names the field beside `model` without which there is nothing to do."""

    path: str
    operation: Operation
    fields: Mapping[str, Field]
    required: str


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/v1/chat/completions", "chat", fields.CHAT, "messages"),
        Endpoint("/v1/completions", "text_completion", fields.COMPLETIONS, "prompt"),
        Endpoint("/v1/embeddings", "embeddings", fields.EMBEDDINGS, "input"),
    )
}


def schema(path: str, title: str) -> dict[str, Any]:
    """The body at a path, for the gateway's description: which fields there are. What they may be, `fields` says."""
    endpoint = ENDPOINTS[path]
    return {
        "title": title,
        "description": "For a plain model: OpenAI's fields, and some of vLLM's.",
        "type": "object",
        "required": ["model", endpoint.required],
        "properties": {name: {} for name, field in endpoint.fields.items() if not field.refused},
    }


@dataclass(slots=True)
class Asked:
    """A request that has been checked. `upstream` is vLLM's body, without what the capture adds to it."""

    endpoint: Endpoint
    upstream: dict[str, Any]
    metadata: dict[str, str]
    messages: list[dict[str, Any]]  # in the form of `feedback.events.Message`
    choices: int = 0
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False  # whether the client wants to see them
    token_ids: bool = False  # the same
    affinity: str | None = None
    turn: dict[str, Any] | None = None  # in the form of `feedback.events.Turn`, where the API knows such


def prepare(endpoint: Endpoint, body: dict[str, Any]) -> Asked:
    """Check every field. Raises `ApiError` (400), which names the one at fault."""
    upstream: dict[str, Any] = {}
    known = endpoint.fields
    for name, value in body.items():
        field = known.get(name)
        if field is None:
            message = f"Unknown or unsupported parameter: {name}. Remove it. Supported: {_supported(known)}."
            raise ApiError(400, message, code="unknown_parameter", param=name)
        if value is None:
            continue
        complaint = field.check(value)
        if complaint is not None:
            _refuse(name, complaint, unsupported=field.refused)
        if field.passed:
            upstream[name] = value
    if endpoint.required not in upstream:
        raise ApiError(
            400,
            f"Missing parameter: {endpoint.required}.",
            code="missing_required_parameter",
            param=endpoint.required,
        )
    if endpoint.operation == "embeddings":
        return Asked(endpoint, upstream, _metadata(body), _as_messages(upstream["input"]))
    return _generation(endpoint, body, upstream)


def _generation(endpoint: Endpoint, body: dict[str, Any], upstream: dict[str, Any]) -> Asked:
    stream = bool(upstream.get("stream"))
    options = body.get("stream_options")
    if options is not None and not stream:
        _refuse("stream_options", "only allowed when stream is true")
    include_usage = bool(options and options.get("include_usage"))
    if include_usage:
        upstream["stream_options"] = {"include_usage": True}
    for name, value in _NEUTRAL.items():
        upstream.setdefault(name, value)
    choices = upstream.get("n", 1)
    if endpoint.operation == "chat":
        _check_chat(upstream)
        messages = [_recorded(message) for message in upstream["messages"]]
        upstream["messages"] = [_sent(message) for message in messages]
        wants_logprobs = bool(upstream.get("logprobs"))
    else:
        messages = _as_messages(upstream["prompt"])
        choices *= _prompts(upstream["prompt"])
        wants_logprobs = "logprobs" in upstream
    return Asked(
        endpoint,
        upstream,
        _metadata(body),
        messages,
        choices=choices,
        stream=stream,
        include_usage=include_usage,
        logprobs=wants_logprobs,
        token_ids=bool(upstream.get("return_token_ids")),
        affinity=body.get("prompt_cache_key"),
    )


def _check_chat(upstream: dict[str, Any]) -> None:
    wrong = fields.check_messages(upstream["messages"])
    if wrong is not None:
        _refuse(*wrong)
    if upstream.get("top_logprobs") and not upstream.get("logprobs"):
        _refuse("top_logprobs", "only allowed when logprobs is true")
    longest = upstream.get("max_completion_tokens")
    if longest is not None and upstream.setdefault("max_tokens", longest) != longest:
        _refuse("max_tokens", "differs from max_completion_tokens: send one of them")


def sampling(upstream: dict[str, Any]) -> dict[str, Any]:
    """In the form of `feedback.events.Sampling`."""
    stop = upstream.get("stop") or ()
    return {
        "temperature": upstream["temperature"],
        "top_p": upstream["top_p"],
        "max_tokens": upstream.get("max_tokens"),
        "seed": upstream.get("seed"),
        "stop": (stop,) if isinstance(stop, str) else stop,
    }


def parameters(upstream: dict[str, Any]) -> dict[str, Any]:
    """What else shaped the answer, for the record."""
    return {
        name: value
        for name, value in upstream.items()
        if name not in _SAMPLING and name not in _BESIDE and name != "stream_options"
    }


def response_schema(upstream: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that the answer has to follow, if the client sent one."""
    found = (upstream.get("response_format") or {}).get("json_schema")
    schema = found.get("schema") if isinstance(found, dict) else None
    return schema if isinstance(schema, dict) else None


def size(asked: Asked) -> tuple[int, int]:
    """How much there is to read, in characters, and to write at most, in tokens: for the limits, before the fact."""
    characters = sum(_characters(message["content"]) for message in asked.messages)
    longest = asked.upstream.get("max_tokens", UNSAID_TOKENS)
    return characters, longest * asked.choices


def _characters(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part.get("text") or "") for part in content or ())


def prefix(asked: Asked) -> bytes:
    """How the prompt begins: what servers share their cached prefixes by."""
    if asked.affinity is not None:
        return asked.affinity.encode()
    beginnings = []
    for message in asked.messages[:2]:
        content = message["content"]
        beginnings.append(content[:_PREFIX] if isinstance(content, str) else repr(content)[:_PREFIX])
    return "\n".join(beginnings).encode()


def _recorded(message: dict[str, Any]) -> dict[str, Any]:
    if "content" in message and None not in message.values() and "annotations" not in message:
        return message
    kept = {name: value for name, value in message.items() if value is not None and name != "annotations"}
    return {**kept, "content": message.get("content")}


def _sent(message: dict[str, Any]) -> dict[str, Any]:
    """Chat templates know no refusal: what the model wrote is then its content."""
    if "refusal" not in message:
        return message
    return {**message, "content": message["content"] or message["refusal"]}


def _as_messages(prompt: Any) -> list[dict[str, Any]]:
    texts = [prompt] if isinstance(prompt, str) else prompt
    return [{"role": "user", "content": text} for text in texts if isinstance(text, str)]


def _prompts(prompt: Any) -> int:
    return 1 if isinstance(prompt, str) or isinstance(prompt[0], int) else len(prompt)


def _metadata(body: dict[str, Any]) -> dict[str, str]:
    return recorded(
        body.get("metadata"),
        user=body.get("user"),
        safety_identifier=body.get("safety_identifier"),
        store=body.get("store"),
    )


def _supported(known: Mapping[str, Field]) -> str:
    return ", ".join(name for name, field in known.items() if not field.refused)


def _refuse(name: str, complaint: str, *, unsupported: bool = False) -> None:
    if unsupported:
        message = f"Unsupported parameter: {name}: {complaint}."
        raise ApiError(400, message, code="unsupported_parameter", param=name)
    raise ApiError(400, f"{name}: {complaint}.", code="invalid_value", param=name)
