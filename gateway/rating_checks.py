"""Whether an opinion can be taken: by a declared metric, with a value that it accepts and a usable correction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jsonschema

from agents.manifest import Agent
from agents.metrics import DEFAULT_METRICS, Level, Metric
from gateway.errors import ApiError
from gateway.opinion import Value
from gateway.wire import load
from tools.errors import ToolError
from tools.sql import parse_select

_MAX_ROWS, _MAX_COLUMNS = 1_000, 50
_LONGEST = 20_000  # characters of a text: see `feedback.events.LongText`
_WHOLE = {"request": "a request", "episode": "a whole episode", "call": "one call of a request"}
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")

Correction = dict[str, Any] | str


def checked_value(
    metrics: Mapping[str, Metric], whose: str, name: str, level: Level, values: Sequence[Value]
) -> Value:
    """The reading that the metric accepts. Raises `ApiError` (400), which says what is expected."""
    metric = metrics.get(name)
    if metric is None:
        message = f"{whose} has no metric {name!r}. Declared: {_named(metrics, level)}."
        raise ApiError(400, message, code="unknown_metric", param="name")
    if metric.level != level:
        message = (
            f"The metric {name!r} rates {_WHOLE[metric.level]}, not {_WHOLE[level]}. "
            f"Of {_WHOLE[level]}: {_named(metrics, level) or 'nothing is declared'}."
        )
        raise ApiError(400, message, code="wrong_level", param="name")
    return _accepted(metric, name, values)


def early_value(agents: Iterable[Agent], name: str, level: Level, values: Sequence[Value]) -> Value:
    """As `checked_value` where nobody knows yet who answered: by any metric of this name. Raises `ApiError` (400)."""
    sets = [*(agent.metrics for agent in agents), DEFAULT_METRICS]
    fitting = [metrics for metrics in sets if name in metrics and metrics[name].level == level]
    for metrics in fitting:
        if any(map(metrics[name].accepts, values)):
            return _accepted(metrics[name], name, values)
    declared = {other: metric for metrics in reversed(sets) for other, metric in metrics.items()}
    return checked_value(declared, "No agent here", name, level, values)


def checked_correction(correction: Correction, agent: Agent | None) -> Correction:
    """The correction in the form in which it is kept. Raises `ApiError` (400), which says what is expected.

    A text for an agent with a response schema is such an answer as JSON, or its SQL. Without an agent, an answer is a
    text, and so is its correction.
    """
    _check_length(correction)
    if isinstance(correction, dict) and correction.keys() == {"rows"}:
        _check_rows(correction["rows"])
        return correction
    if agent is None:
        if isinstance(correction, str):
            return correction
        raise _refused("the text that the answer should have been.", "this is an object.")
    if isinstance(correction, dict):
        _check_answer(correction, agent)
        return correction
    return _answer_in(correction, agent)


def rows_checked(correction: Correction | None) -> Correction | None:
    """The correction of what nobody knows yet who answered: length and rows are checked. Raises `ApiError` (400)."""
    _check_length(correction)
    if isinstance(correction, dict) and correction.keys() == {"rows"}:
        _check_rows(correction["rows"])
    return correction


def _named(metrics: Mapping[str, Metric], level: Level) -> str:
    """The metrics of this level; where there are none, all of them with what they rate."""
    return ", ".join(name for name, metric in metrics.items() if metric.level == level)


def _accepted(metric: Metric, name: str, values: Sequence[Value]) -> Value:
    for value in values:
        if metric.accepts(value):
            return value
    message = f"The metric {name!r} expects {metric.expectation()}."
    raise ApiError(400, message, code="invalid_value", param="value")


def _answer_in(text: str, agent: Agent) -> dict[str, Any]:
    try:
        answer = load(text.encode())
    except ApiError:  # no JSON, or none that could be kept
        answer = None
    if isinstance(answer, dict):
        _check_answer(answer, agent)
        return answer
    if "sql" in _fields(agent.response_schema):
        try:
            parse_select(text)
        except ToolError as error:
            expected = f"an answer of {agent.name} as JSON, or its SQL."
            raise _refused(expected, f"this text is neither: {error}.") from error
        answer = {"sql": text.strip()}
        _check_answer(answer, agent)
        return answer
    raise _refused(f"an answer of {agent.name} by its response schema.", "this is a text.")


def _check_length(correction: Correction | None) -> None:
    if isinstance(correction, str) and len(correction) > _LONGEST:
        raise _refused(f"a text of at most {_LONGEST} characters.", f"this has {len(correction)}.")


def _fields(schema: dict[str, Any]) -> set[str]:
    """The names that an answer's fields may have, as far as the schema says so at its top."""
    names = set(schema.get("properties", ()))
    branches = (branch for word in _ALTERNATIVES for branch in schema.get(word, ()))
    return names.union(*(set(branch.get("properties", ())) for branch in branches))


def _check_answer(correction: dict[str, Any], agent: Agent) -> None:
    try:
        jsonschema.validate(correction, agent.response_schema)
    except jsonschema.ValidationError as error:
        expected = f'{{"rows": [[…], …]}}, or an answer of {agent.name} by its response schema.'
        raise _refused(expected, f"this is neither: {error.message[:300]}") from error


def _refused(expected: str, found: str) -> ApiError:
    message = f"A correction is {expected.rstrip('.')}; {found}"
    return ApiError(400, message, code="invalid_value", param="correction")


def _check_rows(rows: Any) -> None:
    def refuse(message: str) -> ApiError:
        return ApiError(400, message, code="invalid_value", param="correction.rows")

    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise refuse("rows must be a list of rows, each a list of values.")
    if len(rows) > _MAX_ROWS or any(len(row) > _MAX_COLUMNS for row in rows):
        raise refuse(f"At most {_MAX_ROWS} rows of {_MAX_COLUMNS} columns.")
    if any(isinstance(value, dict | list) for row in rows for value in row):
        raise refuse("A value in a row is a string, a number, true, false or null.")
