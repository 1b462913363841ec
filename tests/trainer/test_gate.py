"""The gate passes a clear win and refuses everything that only looks like one."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from trainer.gate import GateError, Thresholds, Verdict, judge
from trainer.reports import Report, TaskResult
from trainer.rewards import Outcome

N = 100  # of which every fifth is unanswerable


def report(
    name: str,
    right: float,
    *,
    refused: float = 0.8,
    wrongly_refused: int = 0,
    tokens: int = 20,
    n: int = N,
    ids: str = "t",
) -> Report:
    """`right` of the answerable questions answered rightly, `refused` of the unanswerable refused, evenly spread."""
    results = []
    for number in range(n):
        answerable = number % 5 != 0
        place = (number * 37 % n) / n
        outcome: Outcome
        if not answerable:
            outcome = "correct_refusal" if place < refused else "hallucination"
        elif place < right:
            outcome = "correct"
        else:
            outcome = "wrong_refusal" if wrongly_refused > 0 else "wrong_rows"
            wrongly_refused -= 1
        results.append(
            TaskResult(
                task_id=f"{ids}{number}",
                tags={"template": str(number // 2)},
                answerable=answerable,
                outcome=outcome,
                text="",
                tokens=tokens,
            )
        )
    return Report(contender=name, policy=f"a@{name}", seconds=1, results=tuple(results))


BASE = report("base", 0.3)
SUPERVISED = report("supervised", 0.5)
BETTER = report("trained", 0.9)


def verdict(
    candidate: Report, baselines: Sequence[Report] = (BASE, SUPERVISED), **thresholds: float
) -> Verdict:
    return judge(
        candidate,
        baselines,
        active="base",
        thresholds=Thresholds.model_validate({"minimum_tasks": 50, **thresholds}),
    )


def failures(found: Verdict) -> list[str]:
    return [reason for reason in found.reasons if reason.startswith("FAIL")]


def test_a_clear_win_passes_and_every_check_says_what_it_found():
    found = verdict(BETTER)
    assert found.passed
    assert failures(found) == []
    assert len(found.reasons) == 6
    assert [comparison.baseline for comparison in found.comparisons] == ["base", "supervised"]
    assert all(0 < c.low <= c.difference <= c.high for c in found.comparisons)


def test_no_gain_over_what_serves_is_refused():
    assert failures(verdict(report("trained", 0.3)))[0].startswith("FAIL: +0.0 points against base")


def test_a_gain_over_what_serves_within_the_noise_is_refused():
    found = judge(report("trained", 0.52), [SUPERVISED], active="supervised", thresholds=Thresholds())
    assert found.comparisons[0].difference > 0
    assert len(failures(found)) == 1
    assert "against supervised" in failures(found)[0]


def test_being_behind_a_baseline_that_does_not_serve_is_refused():
    """Then that baseline is the one to promote."""
    found = verdict(report("trained", 0.48))
    assert len(failures(found)) == 1
    assert "against supervised" in failures(found)[0]
    assert verdict(report("trained", 0.52)).passed


def test_answering_the_unanswerable_is_refused():
    found = verdict(report("trained", 0.95, refused=0.3))
    assert [reason for reason in failures(found) if "unanswerable" in reason]
    assert not verdict(report("trained", 0.95, refused=0.3)).passed
    assert verdict(report("trained", 0.95, refused=0.3), refusal_skill_loss=2).passed


def test_refusing_what_can_be_answered_is_refused():
    assert verdict(report("trained", 0.85, wrongly_refused=8)).passed
    found = verdict(report("trained", 0.85, wrongly_refused=9))
    assert not found.passed
    assert "FAIL: 11.2 % of answerable questions refused (at most 10 %)" in failures(found)


def test_winning_by_length_is_refused():
    assert verdict(report("trained", 0.9, tokens=60)).passed
    found = verdict(report("trained", 0.9, tokens=61))
    assert not found.passed
    assert "61 tokens an answer" in failures(found)[0]


def test_too_few_tasks_are_refused_however_clear_the_win():
    found = judge(
        report("trained", 1.0, n=45),
        [report("base", 0.0, n=45)],
        active="base",
        thresholds=Thresholds(minimum_tasks=50),
    )
    assert failures(found) == ["FAIL: 45 held-out tasks (at least 50)"]


def test_reports_on_different_tasks_or_in_another_order_cannot_be_compared():
    other = report("supervised", 0.5, ids="u")
    reordered = SUPERVISED.model_copy(update={"results": SUPERVISED.results[::-1]})
    shorter = SUPERVISED.model_copy(update={"results": SUPERVISED.results[1:]})
    for baseline in (other, reordered, shorter):
        with pytest.raises(GateError, match="same tasks"):
            verdict(BETTER, [BASE, baseline])


def test_without_a_report_of_the_active_policy_there_is_no_verdict():
    with pytest.raises(GateError, match="active policy"):
        judge(BETTER, [SUPERVISED], active="base", thresholds=Thresholds())
    with pytest.raises(GateError):
        judge(BETTER, [], active="base", thresholds=Thresholds())


def test_where_nothing_is_unanswerable_refusals_are_not_judged():
    def answerable_only(of: Report) -> Report:
        return of.model_copy(update={"results": tuple(r for r in of.results if r.answerable)})

    found = verdict(answerable_only(BETTER), [answerable_only(BASE)])
    assert found.passed
    assert not any("unanswerable" in reason for reason in found.reasons)


def test_a_report_comes_back_as_it_was_saved(tmp_path: Path):
    BETTER.save(tmp_path / "deep" / "report.json")
    assert Report.load(tmp_path / "deep" / "report.json") == BETTER


def test_a_report_counts_what_it_holds():
    found = report("x", 0.5, refused=0.5, wrongly_refused=4)
    right = sum(result.correct for result in found.results)
    assert found.accuracy.accuracy == right / N
    assert found.accuracy.low < right / N < found.accuracy.high
    unanswerable = [result for result in found.results if not result.answerable]
    assert found.refusal_recall == sum(result.correct for result in unanswerable) / len(unanswerable)
    assert found.wrong_refusals == 4 / 80
    assert found.mean_tokens == 20
    assert sum(found.outcomes.values()) == N
    assert found.outcomes["wrong_refusal"] == 4


def test_an_invalid_episode_counts_as_wrong_and_is_named():
    invalid = TaskResult(task_id="t", tags={}, answerable=True, outcome=None, text="timeout", tokens=0)
    found = Report(contender="x", policy="p", seconds=1, results=(invalid,))
    assert (found.accuracy.accuracy, found.outcomes, found.wrong_refusals) == (0, {"invalid": 1}, 0)
    assert found.refusal_recall is None


def test_a_report_is_broken_down_by_tag_in_the_order_of_the_tasks():
    results = tuple(
        TaskResult(task_id=str(i), tags={"level": level}, answerable=True, outcome=outcome, text="", tokens=1)
        for i, (level, outcome) in enumerate(
            [
                ("simple", "correct"),
                ("joined", "sql_error"),
                ("simple", "wrong_rows"),
                ("joined", "sql_error"),
            ]
        )
    )
    by = Report(contender="x", policy="p", seconds=1, results=results).by("level")
    assert list(by) == ["simple", "joined"]
    assert [(figure.accuracy, figure.n) for figure in by.values()] == [(0.5, 2), (0.0, 2)]
