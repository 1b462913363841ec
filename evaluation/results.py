"""One task's result, and the figures that many results make."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from evaluation.episodes import Step
from evaluation.scoring.verdict import REFUSED, Verdict
from evaluation.statistics import mean, wilson


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(_Record):
    """What became of one task. Without a verdict it counts in no figure: `status` says why."""

    task_id: str
    kind: Literal["sql", "contract"]
    status: Literal["answered", "failed", "invalid", "bad_task", "not_asked"] = Field(
        description="invalid: something other than the agent failed; bad_task: what is held to be right cannot be "
        "evaluated; not_asked: the run was stopped before."
    )
    question: str
    gold: str
    answerable: bool
    groups: dict[str, str]
    cluster: str
    text: str = Field("", description="The agent's last text.")
    error: str = ""
    verdict: Verdict | None = None
    steps: tuple[Step, ...] = ()
    turns: int = 0
    tool_errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    pages_cut: int = 0


class Figure(_Record):
    """A figure with its 95 % interval, from `n` results."""

    value: float
    low: float
    high: float
    n: int


class Metric(NamedTuple):
    """A figure's definition: `value` of one result (None: it does not count here), of which the mean is taken.

    Shares have Wilson's interval, means the bootstrap's. `paired`: whether a result counts depends on its task alone,
    so that two reports can be compared task by task.
    """

    name: str
    says: str
    value: Callable[[Result, Verdict], float | None]
    share: bool = True
    paired: bool = True


def _execution(result: Result, verdict: Verdict) -> float | None:
    counts = result.kind == "sql" and result.answerable and not verdict.empty_gold
    return float(verdict.correct) if counts else None


METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "right answers and right refusals, of all", lambda _, v: float(v.correct)),
    Metric("execution_accuracy", "answerable questions whose query returns what is right", _execution),
    Metric(
        "execution_accuracy_empty",
        "the same where nothing is what is right: to return nothing as well says little",
        lambda r, v: float(v.correct) if r.kind == "sql" and r.answerable and v.empty_gold else None,
    ),
    Metric(
        "answer_match",
        "answerable questions about contracts that were answered rightly",
        lambda r, v: float(v.correct) if r.kind == "contract" and r.answerable else None,
    ),
    Metric(
        "page_correct",
        "answerable questions of which a true quote stands on a page of the evidence",
        lambda r, v: float(bool(v.page_correct)) if r.kind == "contract" and r.answerable else None,
    ),
    Metric(
        "quotes_exist",
        "answers with quotes, all of which stand where they say",
        lambda _, v: None if v.quotes_exist is None else float(v.quotes_exist),
        paired=False,
    ),
    Metric(
        "refusal_recall",
        "unanswerable questions that were refused",
        lambda r, v: None if r.answerable else float(v.correct),
    ),
    Metric(
        "refusal_precision",
        "refusals that were right",
        lambda _, v: float(v.correct) if v.outcome in REFUSED else None,
        paired=False,
    ),
    Metric(
        "tool_error_recovery",
        "episodes with a tool error that ended right nevertheless",
        lambda r, v: float(v.correct) if r.tool_errors else None,
        paired=False,
    ),
    Metric("turns", "calls of the model", lambda r, _: float(r.turns), share=False),
    Metric("prompt_tokens", "tokens read, over all turns", lambda r, _: float(r.prompt_tokens), share=False),
    Metric(
        "completion_tokens",
        "tokens written, over all turns",
        lambda r, _: float(r.completion_tokens),
        share=False,
    ),
    Metric("seconds", "wall clock of an episode", lambda r, _: r.seconds, share=False),
)


def figures(results: Sequence[Result]) -> dict[str, Figure]:
    """Every metric that has something to count."""
    return {metric.name: figure for metric in METRICS if (figure := _figure(metric, results)) is not None}


def _figure(metric: Metric, results: Sequence[Result]) -> Figure | None:
    found = counted(metric, results)
    if not found:
        return None
    values = list(found.values())
    if metric.share:
        right = round(sum(values))
        return Figure(value=right / len(values), n=len(values), **_ends(wilson(right, len(values))))
    clusters = {result.task_id: result.cluster for result in results}
    value, *interval = mean(values, [clusters[task] for task in found])
    return Figure(value=value, n=len(values), **_ends(interval))


def _ends(interval: Sequence[float]) -> dict[str, float]:
    low, high = interval
    return {"low": low, "high": high}


def counted(metric: Metric, results: Sequence[Result]) -> dict[str, float]:
    """Each result's value of the metric, by task, of those that count."""
    return {
        result.task_id: value
        for result in results
        if result.verdict is not None and (value := metric.value(result, result.verdict)) is not None
    }
