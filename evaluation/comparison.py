"""Two reports on the same tasks: what the one is better or worse by."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from evaluation.errors import EvaluationError
from evaluation.results import METRICS, Result, counted
from evaluation.statistics import paired_difference


class ComparisonError(EvaluationError):
    """Two reports that have no task in common."""


class Difference(BaseModel):
    """Ours minus theirs on the `n` tasks that count in both, with its 95 % interval (bootstrap over clusters)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    n: int


class Comparison(BaseModel):
    """This report against another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="The other's.")
    shared: int = Field(description="Tasks that were scored in both.")
    only_ours: int
    only_theirs: int
    metrics: dict[str, Difference]


def compare(ours: Sequence[Result], theirs: Sequence[Result], *, model: str) -> Comparison:
    """Raises `ComparisonError`."""
    scored, others = (
        {result.task_id: result for result in results if result.verdict is not None}
        for results in (ours, theirs)
    )
    shared = [result for task, result in scored.items() if task in others]
    if not shared:
        raise ComparisonError(f"no task was scored both here and in the report on {model}")
    metrics = {}
    for metric in METRICS:
        if not metric.paired:
            continue
        mine = counted(metric, shared)
        yours = counted(metric, [others[task] for task in mine])
        both = [result for result in shared if result.task_id in mine and result.task_id in yours]
        if not both:
            continue
        pairs = [(mine[result.task_id], yours[result.task_id]) for result in both]
        left, right = [a for a, _ in pairs], [b for _, b in pairs]
        difference, low, high = paired_difference(left, right, [result.cluster for result in both])
        metrics[metric.name] = Difference(
            ours=sum(left) / len(left),
            theirs=sum(right) / len(right),
            difference=difference,
            low=low,
            high=high,
            n=len(both),
        )
    return Comparison(
        model=model,
        shared=len(shared),
        only_ours=len(scored) - len(shared),
        only_theirs=len(others) - len(shared),
        metrics=metrics,
    )
