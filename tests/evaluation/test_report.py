"""Figures, comparisons, and the report as JSON and as a page."""

import re
from pathlib import Path
from typing import Any

import pytest

from evaluation import report
from evaluation.comparison import ComparisonError, compare
from evaluation.episodes import Episode, Step
from evaluation.report import Report, ReportError, summary
from evaluation.results import METRICS, Result, figures
from evaluation.scoring import Outcome, Verdict
from evaluation.scoring.sql import SqlScorer
from evaluation.statistics import wilson
from evaluation.tasks import SqlTask

RUN = {"agent": "sql-analyst", "model": "small", "tasks": "tasks.jsonl"}


def result(number: int, outcome: Outcome | None = "correct", **fields: Any) -> Result:
    verdict = None if outcome is None else Verdict(outcome=outcome)
    known = {
        "task_id": f"t{number}",
        "kind": "sql",
        "status": "answered" if verdict else "invalid",
        "question": f"Question {number}?",
        "gold": "SELECT 1",
        "answerable": outcome not in ("correct_refusal", "hallucination"),
        "groups": {"category": "even" if number % 2 == 0 else "odd"},
        "cluster": f"t{number}",
        "verdict": verdict,
        "turns": 2,
        "seconds": float(number),
    }
    return Result.model_validate({**known, **fields})


def test_shares_have_wilsons_interval_and_means_one_that_holds_them():
    found = figures([result(n, "correct" if n < 6 else "wrong") for n in range(8)])
    assert (found["accuracy"].low, found["accuracy"].high) == wilson(6, 8)
    assert found["execution_accuracy"].n == 8
    assert found["turns"].low == found["turns"].value == found["turns"].high == 2
    assert found["seconds"].low < found["seconds"].value == 3.5 < found["seconds"].high


def test_what_was_not_scored_counts_in_no_figure():
    found = summary(RUN, ["p"], [result(1), result(2, None), result(3, None, status="bad_task")])
    assert (found.tasks, found.scored, found.invalid, found.bad_tasks) == (3, 1, 1, 1)
    assert found.overall["accuracy"].n == found.overall["turns"].n == 1


def test_refusals_have_precision_and_recall():
    found = figures(
        [
            result(1, "correct_refusal"),
            result(2, "hallucination"),
            result(3, "wrong_refusal"),
            result(4, "correct_refusal"),
            result(5),
        ]
    )
    for name in ("refusal_precision", "refusal_recall"):
        assert found[name].value == pytest.approx(2 / 3)
        assert found[name].n == 3


def test_agreeing_on_nothing_is_reported_apart():
    empty = Verdict(outcome="correct", empty_gold=True)
    found = figures([result(1, "wrong"), result(2, verdict=empty)])
    assert (found["execution_accuracy"].value, found["execution_accuracy"].n) == (0, 1)
    assert (found["execution_accuracy_empty"].value, found["execution_accuracy_empty"].n) == (1, 1)


def test_figures_are_given_for_each_part_of_each_division():
    found = summary(RUN, [], [result(1), result(2, "wrong"), result(3)])
    assert {part: one["accuracy"].value for part, one in found.by["category"].items()} == {
        "even": 0,
        "odd": 1,
    }


def test_an_episode_becomes_a_result_whatever_became_of_it(tmp_path: Path):
    task = SqlTask("t", "?", (tmp_path / "none.sqlite",), golds=())
    answered = Episode(task_id="t", status="answered", text='{"refusal": "no"}', turns=3)
    failed = Episode(task_id="t", status="failed", error="too long")
    invalid = Episode(task_id="t", status="invalid", error="away")
    found = [report.result(task, episode, SqlScorer()) for episode in (answered, failed, invalid, None)]
    assert [one.status for one in found] == ["answered", "failed", "invalid", "not_asked"]
    assert [one.verdict.outcome if one.verdict else None for one in found] == [
        "correct_refusal",
        "failed",
        None,
        None,
    ]


def test_two_reports_are_compared_task_by_task():
    ours = [result(n, "correct") for n in range(20)]
    theirs = [result(n, "correct" if n < 10 else "wrong") for n in range(5, 25)]
    found = compare(ours, theirs, model="other")
    assert (found.shared, found.only_ours, found.only_theirs) == (15, 5, 5)
    gain = found.metrics["accuracy"]
    assert gain.difference == pytest.approx(gain.ours - gain.theirs) == pytest.approx(2 / 3)
    assert 0 < gain.low < gain.difference < gain.high <= 1
    assert "refusal_precision" not in found.metrics
    with pytest.raises(ComparisonError, match="no task was scored both here and"):
        compare(ours, [result(99)], model="other")


def test_a_saved_report_is_read_again_and_its_page_is_one_file_without_scripts(tmp_path: Path):
    hostile = "<script>alert(1)</script>"
    step = Step(kind="tool", name="run_sql", asked={"sql": hostile}, error=hostile)
    results = [
        result(1),
        result(2, "wrong", text=hostile, question=hostile, steps=(step,), tool_errors=1),
        result(3, None, error="away"),
    ]
    found = summary(RUN, ["small@1"], results)
    found = found.model_copy(update={"against": compare(results, results, model="itself")})
    found.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == found
    page = (tmp_path / "report.html").read_text()
    assert hostile not in page and "&lt;script&gt;" in page
    assert not re.search(r"<script|<link|\b(src|href)=|@import|url\(", page)
    for metric in METRICS:
        assert (metric.says in page) is (metric.name in found.overall)
    assert "Against itself" in page and "tasks cannot be evaluated" not in page


@pytest.mark.parametrize("content", ["{}", "nonsense", '{"schema_version": 2}'])
def test_what_is_no_report_is_told(tmp_path: Path, content: str):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ReportError, match=r"x\.json is no report"):
        Report.load(tmp_path / "x.json")
    with pytest.raises(ReportError, match="No such file"):
        Report.load(tmp_path / "none.json")
