"""Events as rows of typed columns. What has no fixed form (messages, arguments, corrections) is JSON in a text."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from feedback.events import ExternalCall, ModelCall, PolicyChanged, RequestFinished, ToolCall
from feedback.store.snapshot import Said

_TEXT, _NUMBER, _FLOAT, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")
_TEXTS = pa.map_(_TEXT, _TEXT)
_EVENT = (("event_id", _TEXT), ("tenant", _TEXT), ("time", _TIME))
SCHEMAS = {
    "requests": pa.schema(
        [
            *_EVENT,
            *((name, _TEXT) for name in ("request_id", "episode_id", "trace_id", "origin", "operation")),
            *((name, _TEXT) for name in ("agent", "policy", "caller", "status", "error")),
            ("question", _TEXT),  # the last that the user said
            ("input", _TEXT),  # JSON: all messages
            ("output", _TEXT),
            ("metadata", _TEXTS),
            ("turn", _TEXT),  # JSON: what else belongs to a response
            ("calls", _NUMBER),
            ("cost", _FLOAT),  # US dollars
            ("latency", _FLOAT),  # seconds, as every other
        ]
    ),
    "calls": pa.schema(
        [
            *((name, _TEXT) for name in ("tenant", "request_id")),
            ("time", _TIME),  # of the request
            ("call", _NUMBER),  # its place among the calls of the request, from 0, as in ratings
            ("kind", _TEXT),  # model, tool or external
            ("name", _TEXT),  # the policy, the tool, the provider's model
            ("input", _TEXT),  # JSON: messages, arguments, the request to the provider
            ("output", _TEXT),  # the text of a model; JSON of others: result, response
            ("reasoning", _TEXT),
            ("tool_calls", _TEXT),  # JSON: what the model asked for
            ("error", _TEXT),
            ("finish_reason", _TEXT),
            ("temperature", _FLOAT),
            ("parameters", _TEXT),  # JSON: the sampling, the schema and whatever else was sent
            ("prompt_token_ids", pa.list_(_NUMBER)),
            ("completion_token_ids", pa.list_(_NUMBER)),
            ("logprobs", pa.list_(_FLOAT)),
            ("attempts", _NUMBER),
            ("started", _TIME),
            ("time_to_first_token", _FLOAT),
            ("latency", _FLOAT),
        ]
    ),
    "ratings": pa.schema(
        [
            *_EVENT,
            *((name, _TEXT) for name in ("request_id", "episode_id")),
            ("call", _NUMBER),
            *((name, _TEXT) for name in ("rater", "rater_kind", "source", "name")),
            ("value", _TEXT),  # JSON
            ("number", _FLOAT),  # the value where it is a number; right is 1, wrong is 0
            ("label", _TEXT),  # the value where it is a category
            ("correction", _TEXT),  # JSON
            ("comment", _TEXT),
            ("tags", _TEXTS),
            ("withdrawn", _FLAG),  # it takes back what was said before
            ("current", _FLAG),  # it stands: neither superseded nor withdrawn
        ]
    ),
    "policy_changes": pa.schema(
        [
            *_EVENT,
            *((name, _TEXT) for name in ("agent", "policy", "state", "by", "reason", "path")),
            ("evidence", _TEXT),  # JSON
        ]
    ),
}


def of_request(event: RequestFinished) -> dict[str, Any]:
    """The row of a request, without its calls."""
    asked = [message.text for message in event.input if message.role == "user"]
    return {
        **_plain(event, "requests"),
        "question": asked[-1] if asked else None,
        "input": _json([message.model_dump(mode="json") for message in event.input]),
        "metadata": list(event.metadata.items()),
        "turn": None if event.turn is None else event.turn.model_dump_json(),
        "calls": len(event.calls),
    }


def of_calls(event: RequestFinished) -> Iterator[dict[str, Any]]:
    """A row for each call of a request."""
    for place, call in enumerate(event.calls):
        yield {
            **_plain(call, "calls"),
            **_plain(event, "calls", "tenant", "request_id", "time"),
            **_of_kind(call),
            "call": place,
        }


def of_rating(said: Said) -> dict[str, Any]:
    """The row of a rating."""
    rating, value = said.rating, said.rating.value
    return {
        **_plain(rating, "ratings"),
        "value": _json(value),
        "number": float(value) if isinstance(value, bool | float) else None,
        "label": value if isinstance(value, str) else None,
        "correction": _json(rating.correction),
        "tags": list(rating.tags.items()),
        "withdrawn": rating.withdrawn,
        "current": said.current,
    }


def of_policy_change(event: PolicyChanged) -> dict[str, Any]:
    """The row of a policy's change."""
    return {**_plain(event, "policy_changes"), "evidence": _json(event.evidence)}


def _of_kind(call: ModelCall | ToolCall | ExternalCall) -> dict[str, Any]:
    if isinstance(call, ToolCall):
        return {"input": _json(call.arguments), "output": _json(call.result)}
    if isinstance(call, ExternalCall):
        return {"name": call.model, "input": _json(call.request), "output": _json(call.response)}
    sent = {
        **call.parameters,
        **call.sampling.model_dump(mode="json"),
        "response_schema": call.response_schema,
    }
    return {
        "name": call.policy,
        "input": _json([message.model_dump(mode="json") for message in call.messages]),
        "output": call.text,
        "tool_calls": _json(call.tool_calls),
        "temperature": call.sampling.temperature,
        "parameters": _json(sent),
    }


def _plain(record: object, table: str, *names: str) -> dict[str, Any]:
    """The fields that are columns as they are."""
    wanted = names or SCHEMAS[table].names
    return {name: getattr(record, name) for name in wanted if hasattr(record, name)}


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
