"""The demo's report: figures as JSON, and a page with plots that opens anywhere."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from deploy.load import Answered
from evaluation.statistics import paired_difference
from trainer.gate import Comparison
from trainer.reports import Report

_ORDER = ("base", "base_few_shot", "supervised", "trained", "served_after_swap")
_BAR_POINTS = 10.0  # what reinforcement must add to supervised tuning
_INK, _ACCENT, _QUIET, _BAD = "#1f2937", "#2563eb", "#9ca3af", "#dc2626"


def write(
    folder: Path,
    *,
    seed: int,
    stages: Mapping[str, Any],
    seconds: Mapping[str, float],
    reports: Mapping[str, Report],
    metrics: Path,
) -> dict[str, Any]:
    """Write `demo.json` and `demo.html` into `folder`; return what the JSON holds."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = _summary(seed, stages, seconds, reports)
    (folder / "demo.json").write_text(json.dumps(summary, indent=1))
    plots = {"reward": _reward_plot(metrics), "accuracy": _accuracy_plot(reports)}
    if "swap" in stages:
        plots["swap"] = _swap_plot(stages["swap"])
    page = _template().render(summary=summary, plots=plots, stages=stages)
    (folder / "demo.html").write_text(page, encoding="utf-8")
    return summary


def _summary(
    seed: int, stages: Mapping[str, Any], seconds: Mapping[str, float], reports: Mapping[str, Report]
) -> dict[str, Any]:
    gain = _against(reports["trained"], reports["supervised"])
    swap = {key: value for key, value in stages.get("swap", {}).items() if key not in ("answered", "marks")}
    return {
        "seed": seed,
        "accuracy": {name: _figures(reports[name]) for name in _ORDER if name in reports},
        "trained_minus_supervised": gain.model_dump(),
        "gate": stages["gate"],
        "swap": swap or None,
        "feedback": {"employees": stages["collect"], "curation": stages["curate"]["counts"]},
        "question": {when: stages.get(when) for when in ("before", "after")},
        "wall_seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "conclusion": _conclusion(gain, stages),
    }


def _figures(report: Report) -> dict[str, Any]:
    return {
        **report.accuracy.model_dump(),
        "policy": report.policy,
        "by_level": {level: figure.model_dump() for level, figure in report.by("level").items()},
        "by_novelty": {novelty: figure.model_dump() for novelty, figure in report.by("novelty").items()},
        "outcomes": report.outcomes,
        "refusal_recall": report.refusal_recall,
        "wrong_refusals": report.wrong_refusals,
        "mean_tokens": round(report.mean_tokens, 1),
        "seconds": round(report.seconds, 1),
    }


def _against(candidate: Report, baseline: Report) -> Comparison:
    difference, low, high = paired_difference(
        [result.correct for result in candidate.results],
        [result.correct for result in baseline.results],
        [result.tags["template"] for result in candidate.results],
    )
    return Comparison(baseline=baseline.contender, difference=difference, low=low, high=high)


def _conclusion(gain: Comparison, stages: Mapping[str, Any]) -> str:
    points = 100 * gain.difference
    found = (
        f"Reinforcement learning gave {points:+.1f} points over supervised tuning with the same corrections "
        f"(95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    )
    bar = "which reaches" if points >= _BAR_POINTS else "which does NOT reach"
    if not stages["gate"]["passed"]:
        outcome = "The gate refused the policy; nothing was promoted."
    else:
        swap = stages["swap"]
        outcome = (
            f"It was promoted: {swap['requests']} requests across the swaps, {swap['failed']} failed, "
            f"{swap['mixed_policy']} by mixed policies; roll-back took {swap['rollback_seconds']:.2f} s."
        )
    return f"{found}, {bar} the {_BAR_POINTS:.0f} points that this demo sets itself. {outcome}"


def _reward_plot(metrics: Path) -> str:
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = {r["step"]: r["reward"] for r in records if r.get("stage") == "reinforced" and "reward" in r}
    figure, axes = _canvas("Mean reward per training step", (6.4, 3.2))
    axes.plot(list(steps), list(steps.values()), color=_QUIET, linewidth=1, label="step")
    window = 6
    values = list(steps.values())
    smooth = [
        sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1])
        for i in range(len(values))
    ]
    axes.plot(list(steps), smooth, color=_ACCENT, linewidth=2, label=f"mean of {window} steps")
    axes.set_xlabel("step")
    axes.legend(frameon=False)
    return _svg(figure)


def _accuracy_plot(reports: Mapping[str, Report]) -> str:
    names = [name for name in _ORDER if name in reports]
    figures = [reports[name].accuracy for name in names]
    figure, axes = _canvas("Held-out accuracy, with 95 % intervals", (6.4, 3.2))
    heights = [100 * f.accuracy for f in figures]
    errors = [[100 * (f.accuracy - f.low) for f in figures], [100 * (f.high - f.accuracy) for f in figures]]
    colours = [_ACCENT if name in ("trained", "served_after_swap") else _QUIET for name in names]
    bars = axes.bar(
        [name.replace("_", "\n") for name in names], heights, yerr=errors, color=colours, capsize=4
    )
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_ylabel("%")
    axes.set_ylim(0, 100)
    return _svg(figure)


def _swap_plot(swap: Mapping[str, Any]) -> str:
    figure, axes = _canvas("Latency of every request while policies are swapped", (6.4, 3.2))
    answered = [Answered.model_validate(one) for one in swap["answered"]]
    complete = [one for one in answered if one.error is None]
    policies = dict.fromkeys(policy for one in complete for policy in one.policies)
    for policy, colour in zip(policies, (_QUIET, _ACCENT, _INK), strict=False):
        ours = [one for one in complete if one.policies == (policy,)]
        _latencies(axes, ours, color=colour, label=policy, s=14)
    failed = [one for one in answered if one.error is not None]
    _latencies(axes, failed, color=_BAD, label=f"failed: {len(failed)}", marker="x")
    for label, at in swap["marks"].items():
        axes.axvline(at, color=_INK, linewidth=0.8, linestyle="--")
        axes.annotate(
            label, (at, 1), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize=8
        )
    axes.set_xlabel("seconds since the load began")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _latencies(axes: Any, requests: Sequence[Answered], **style: Any) -> None:
    axes.scatter([one.ended for one in requests], [one.ended - one.started for one in requests], **style)


def _canvas(title: str, size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as a data URI, so that the page is one file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "demo.html"
    )
