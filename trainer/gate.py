"""May a candidate be promoted? Pure: reports in, a verdict with its reasons out."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from evaluation.statistics import paired_difference
from trainer.reports import Report


class Thresholds(BaseModel):
    """What a candidate must show. Differences are of accuracy on the same held-out tasks, with 95 % intervals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refusal_skill_loss: float = Field(0.1, ge=0, description="Tolerated loss against the active policy.")
    wrong_refusals: float = Field(
        0.1, ge=0, le=1, description="Tolerated part of answerable questions refused."
    )
    length_factor: float = Field(
        3.0, gt=0, description="Tolerated mean length, against the shortest baseline."
    )
    minimum_tasks: int = Field(50, ge=1)


class Comparison(BaseModel):
    """The candidate against one baseline: mean difference of accuracy and its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    baseline: str
    difference: float
    low: float
    high: float


class Verdict(BaseModel):
    """`passed` is true when every check is; `reasons` says of each check what was found."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


class GateError(Exception):
    """Reports that cannot be compared."""


def judge(candidate: Report, baselines: Sequence[Report], *, active: str, thresholds: Thresholds) -> Verdict:
    """The verdict on `candidate`. `active` names the baseline that serves now. Raises `GateError`.

    The candidate must surely be better than what serves now (the interval of the difference lies above zero) and not
    be behind any other baseline, or that would be the one to promote; and it must not have bought that by refusing, by
    answering the unanswerable, or by length.
    """
    ids = [result.task_id for result in candidate.results]
    if any([result.task_id for result in baseline.results] != ids for baseline in baselines):
        raise GateError("the contenders were not evaluated on the same tasks")
    serving = next((baseline for baseline in baselines if baseline.contender == active), None)
    if serving is None:
        raise GateError(f"no report of the active policy ({active}) to compare with")

    comparisons = tuple(_compare(candidate, baseline) for baseline in baselines)
    checks = [
        (
            len(ids) >= thresholds.minimum_tasks,
            f"{len(ids)} held-out tasks (at least {thresholds.minimum_tasks})",
        )
    ]
    checks += [_better(comparison, must_be_sure=comparison.baseline == active) for comparison in comparisons]
    checks += _guards(candidate, baselines, serving, thresholds)
    reasons = tuple(f"{'pass' if passed else 'FAIL'}: {text}" for passed, text in checks)
    return Verdict(passed=all(passed for passed, _ in checks), reasons=reasons, comparisons=comparisons)


def _compare(candidate: Report, baseline: Report) -> Comparison:
    difference, low, high = paired_difference(
        [result.correct for result in candidate.results],
        [result.correct for result in baseline.results],
        [result.tags.get("template", result.task_id) for result in candidate.results],
    )
    return Comparison(baseline=baseline.contender, difference=difference, low=low, high=high)


def _better(comparison: Comparison, *, must_be_sure: bool) -> tuple[bool, str]:
    needed = "the interval must lie above 0" if must_be_sure else "must not be below 0"
    return (
        comparison.low > 0 if must_be_sure else comparison.difference >= 0,
        (
            f"{100 * comparison.difference:+.1f} points against {comparison.baseline} (95 % interval "
            f"{100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}; {needed})"
        ),
    )


def _guards(
    candidate: Report, baselines: Sequence[Report], serving: Report, thresholds: Thresholds
) -> list[tuple[bool, str]]:
    checks = []
    ours, theirs = candidate.refusal_skill, serving.refusal_skill
    if ours is not None and theirs is not None:
        checks.append(
            (
                ours >= theirs - thresholds.refusal_skill_loss,
                (
                    f"tells the unanswerable from the answerable by {100 * ours:.0f} points of refusals "
                    f"(active: {100 * theirs:.0f})"
                ),
            )
        )
    checks.append(
        (
            candidate.wrong_refusals <= thresholds.wrong_refusals,
            (
                f"{100 * candidate.wrong_refusals:.1f} % of answerable questions refused "
                f"(at most {100 * thresholds.wrong_refusals:.0f} %)"
            ),
        )
    )
    shortest = min(baseline.mean_tokens for baseline in baselines)
    checks.append(
        (
            candidate.mean_tokens <= thresholds.length_factor * shortest,
            f"{candidate.mean_tokens:.0f} tokens an answer (at most {thresholds.length_factor:g} x {shortest:.0f})",
        )
    )
    return checks
