"""What somebody says, in whatever API: about what, by which metric, and how. The one form behind every door."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Value = bool | float | str | dict[str, bool | float | str]


class About(NamedTuple):
    """What is rated, as its client names it: by a request, an episode, a trace or a span.

    `call` is an index into the request's calls. `trace` is a W3C trace id or a request's; beside it, `span` says which
    part of the trace. `asked` is how the client's API calls what has the id, for error messages.
    """

    request_id: str | None = None
    call: int | None = None
    episode_id: str | None = None
    trace: str | None = None
    span: str | None = None
    param: str = "request_id"


@dataclass(frozen=True)
class Opinion:
    """`values` are readings of one thing that was said: the first that the metric accepts is it.

    `rater` is one of those for whom the key's owner speaks; None: the owner. `apart`: in the client's API a correction
    is an object of its own, so that saying "wrong" takes back none that was given before.
    """

    about: About
    name: str
    values: Sequence[Value]
    correction: dict[str, Any] | str | None = None
    comment: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    source: str = "api"
    rater: str | None = None
    rater_kind: Literal["human", "model", "code"] = "human"
    apart: bool = False


def as_tags(**said: Any) -> dict[str, str]:
    """What an event has no field for, as text; what is not text as JSON, what is None not at all."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in said.items()
        if value is not None
    }


def readings(*said: bool | float | str | None) -> list[Value]:
    """What may have been meant where an API has no truth values of its own: 1 and 0, or words for them."""
    values: list[Value] = [value for value in said if value is not None]
    words = {"true": True, "false": False, "yes": True, "no": False}  # the latter from judges of MLflow's
    for value in said:
        if isinstance(value, str) and value.lower() in words:
            values.append(words[value.lower()])
        elif isinstance(value, int | float) and not isinstance(value, bool) and value in (0, 1):
            values.append(bool(value))
    return values
