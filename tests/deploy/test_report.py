"""The report holds what was measured, says it plainly, and is a page that opens anywhere."""

import base64
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.load import Answered
from deploy.report import write
from trainer.reports import Report, TaskResult

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:matplotlib")


def report(name: str, rate: float, seed: int) -> Report:
    generator = random.Random(seed)
    results = tuple(
        TaskResult(
            task_id=f"t{number}",
            tags={
                "template": f"template{number % 10}",
                "level": ("simple", "joined", "unanswerable")[number % 3],
                "novelty": ("phrasing", "template")[number % 2],
            },
            answerable=number % 3 != 2,
            outcome=("correct" if number % 3 != 2 else "correct_refusal")
            if generator.random() < rate
            else ("wrong_rows" if number % 3 != 2 else "hallucination"),
            text="{}",
            tokens=12,
        )
        for number in range(60)
    )
    return Report(contender=name, policy=f"sql-analyst@{name}", seconds=2.5, results=results)


REPORTS = {
    name: report(name, rate, seed)
    for seed, (name, rate) in enumerate(
        {
            "base": 0.1,
            "base_few_shot": 0.2,
            "supervised": 0.4,
            "trained": 0.8,
            "served_after_swap": 0.8,
        }.items()
    )
}
ASKED = {
    "question": "How many <claims> & {{ policies }}?",
    "policy": "sql-analyst@base",
    "answer": '{"sql": "SELECT \'<b>\'"}',
    "outcome": "wrong_rows",
    "gold": "SELECT COUNT(*) FROM claims WHERE amount > 1",
}


def answered(at: float, *policies: str, error: str | None = None) -> dict[str, Any]:
    """One request of the load, as the demo keeps it."""
    one = Answered(started=at, first_token=None, ended=at + 0.4, policies=policies, error=error)
    return one.model_dump(mode="json")


STAGES: dict[str, Any] = {
    "start": {},
    "before": ASKED,
    "collect": {"asked": 25, "rated up": 5, "rated down": 20},
    "curate": {"path": "x.jsonl", "counts": {"samples with sql": 4}},
    "gate": {"passed": True, "reasons": ["pass: +40.0 points against base"], "comparisons": []},
    "swap": {
        "policy": "sql-analyst@trained",
        "previous": "sql-analyst@base",
        "requests": 3,
        "failed": 1,
        "mixed_policy": 0,
        "load_seconds": 0.5,
        "probe_mean_delta": 0.01,
        "rollback_seconds": 0.25,
        "marks": {"promoted": 1.0, "rolled back": 2.0},
        "answered": [
            answered(0.1, "a@1"),
            answered(0.6, "a@2"),
            answered(1.0, error="refused"),
        ],
    },
    "after": {**ASKED, "policy": "sql-analyst@trained", "outcome": "correct"},
}
SECONDS = {"collect": 10.0, "train": 99.5}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "progress.jsonl"
    told = [{"stage": "supervised", "step": 1, "steps": 1, "loss": 2.0}]
    told += [{"stage": "reinforced", "step": n, "steps": 9, "reward": n / 10} for n in range(1, 10)]
    told.append({"stage": "reinforced", "note": "a note"})
    path.write_text("".join(json.dumps(record) + "\n" for record in told))
    return path


def written(folder: Path, metrics: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    told: dict[str, Any] = {
        "seed": 3,
        "stages": STAGES,
        "seconds": SECONDS,
        "reports": REPORTS,
        "metrics": metrics,
    }
    summary = write(folder, **{**told, **changes})
    assert json.loads((folder / "demo.json").read_text()) == json.loads(json.dumps(summary))
    return summary, (folder / "demo.html").read_text("utf-8")


def test_the_figures_are_those_of_the_reports(tmp_path: Path, metrics: Path):
    summary, _ = written(tmp_path / "out", metrics)
    assert {"accuracy", "swap", "wall_seconds", "seed", "gate", "feedback", "conclusion"} <= set(summary)
    assert list(summary["accuracy"]) == [
        "base",
        "base_few_shot",
        "supervised",
        "trained",
        "served_after_swap",
    ]
    for name, figures in summary["accuracy"].items():
        assert figures["accuracy"] == REPORTS[name].accuracy.accuracy
        assert figures["n"] == 60
        assert set(figures["by_level"]) == {"simple", "joined", "unanswerable"}
        assert set(figures["by_novelty"]) == {"phrasing", "template"}
        assert figures["refusal_recall"] == REPORTS[name].refusal_recall
    gain = summary["trained_minus_supervised"]
    trained, supervised = (summary["accuracy"][name]["accuracy"] for name in ("trained", "supervised"))
    assert gain["difference"] == pytest.approx(trained - supervised)
    assert gain["low"] <= gain["difference"] <= gain["high"]
    assert summary["wall_seconds"] == {**SECONDS, "total": 109.5}


def test_the_swaps_figures_are_told_without_its_raw_data(tmp_path: Path, metrics: Path):
    summary, _ = written(tmp_path / "out", metrics)
    assert (summary["swap"]["requests"], summary["swap"]["failed"]) == (3, 1)
    assert not {"answered", "marks"} & set(summary["swap"])


def test_the_page_is_one_file_without_unrendered_marks_and_holds_the_figures(tmp_path: Path, metrics: Path):
    summary, page = written(tmp_path / "out", metrics)
    shown = page.replace("{{ policies }}", "")  # the question's own
    assert "{{" not in shown
    assert "{%" not in shown
    assert "Undefined" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert page.count('src="data:image/svg+xml;base64,') == 3
    assert page.count("<table") == page.count("</table>") >= 4
    for name, figures in summary["accuracy"].items():
        assert name.replace("_", " ") in page
        assert f"{100 * figures['accuracy']:.1f} %" in page


def test_every_request_of_the_swap_is_in_its_plot(tmp_path: Path, metrics: Path):
    _, page = written(tmp_path / "out", metrics)
    images = [base64.b64decode(data) for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    clouds = [re.findall(rb'<g id="PathCollection_\d+">.*?</g>\s*</g>', image, re.DOTALL) for image in images]
    points = [sum(cloud.count(b"<use") for cloud in found) for found in clouds]
    assert points == [0, 0, 3 + 3]  # the requests, and the legend's mark of each series


def test_what_people_and_models_wrote_is_escaped(tmp_path: Path, metrics: Path):
    _, page = written(tmp_path / "out", metrics)
    assert "How many &lt;claims&gt; &amp; {{ policies }}?" in page
    assert "<b>'" not in page
    assert "<claims>" not in page


def test_a_refused_policy_has_a_report_too_and_it_says_so(tmp_path: Path, metrics: Path):
    stages = {name: result for name, result in STAGES.items() if name not in ("swap", "after")}
    stages["gate"] = {"passed": False, "reasons": ["FAIL: too long"], "comparisons": []}
    reports = {name: found for name, found in REPORTS.items() if name != "served_after_swap"}
    summary, page = written(tmp_path / "out", metrics, stages=stages, reports=reports)
    assert summary["swap"] is None
    assert "refused the policy; nothing was promoted" in summary["conclusion"]
    assert "FAIL: too long" in page
    assert "Hot swap" not in page


@pytest.mark.parametrize(("rate", "said"), [(0.9, "which reaches"), (0.4, "does NOT reach")])
def test_the_conclusion_holds_the_demo_to_its_own_bar(tmp_path: Path, metrics: Path, rate: float, said: str):
    reports = {**REPORTS, "supervised": report("supervised", 0.4, 2), "trained": report("trained", rate, 2)}
    summary, page = written(tmp_path / "out", metrics, reports=reports)
    assert said in summary["conclusion"]
    assert said in page
