"""What a run found: JSON to compute with, and a page that opens anywhere.

The JSON is a `Report`: `schema_version` rises when a field changes its meaning or goes away. Figures are shares from 0
to 1, tokens, turns and seconds, each with its 95 % interval; `evaluation.results.METRICS` defines them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.comparison import Comparison
from evaluation.episodes import Episode
from evaluation.errors import EvaluationError
from evaluation.results import METRICS, Figure, Result, figures
from evaluation.scoring.contracts import score as score_contract
from evaluation.scoring.sql import SqlScorer
from evaluation.scoring.verdict import BadTaskError, Verdict
from evaluation.tasks import SqlTask, Task

_EXAMPLES = 8  # of each outcome that is not right
_WORST_FIRST = ("hallucination", "wrong", "wrong_refusal", "sql_error", "malformed", "failed")


class ReportError(EvaluationError):
    """A report that cannot be read. The message names the file and the fault."""


class Report(BaseModel):
    """One agent with one model on one task set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    run: dict[str, Any] = Field(
        description="What was run: agent, its digest, model, tasks (the file), tasks_digest (SHA-256), format, options."
    )
    policies: tuple[str, ...] = Field(description="What answered, as the models call themselves.")
    tasks: int
    scored: int
    invalid: int = Field(
        description="Something other than the agent failed; asked again when the run goes on."
    )
    bad_tasks: int = Field(description="What is held to be right cannot be evaluated.")
    not_asked: int = Field(description="The run was stopped before.")
    cut: int = Field(description="Contracts given whole that did not fit and lost pages at their end.")
    outcomes: dict[str, int]
    overall: dict[str, Figure]
    by: dict[str, dict[str, dict[str, Figure]]] = Field(description="Division, part of it, metric: figure.")
    against: Comparison | None = None
    results: tuple[Result, ...]

    @classmethod
    def load(cls, path: Path) -> "Report":
        """What `save` wrote. Raises `ReportError`."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ReportError(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ReportError(f"{path} is no report of an evaluation: {where}: {first['msg']}") from error

    def save(self, path: Path) -> None:
        """Write the JSON, and beside it the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1, exclude_defaults=False), encoding="utf-8")
        path.with_suffix(".html").write_text(page(self), encoding="utf-8")


def result(task: Task, episode: Episode | None, scorer: SqlScorer) -> Result:
    """A task with what became of it, scored."""
    known: dict[str, Any] = {
        "task_id": task.id,
        "kind": "sql" if isinstance(task, SqlTask) else "contract",
        "question": task.asked,
        "gold": task.gold,
        "answerable": task.answerable,
        "groups": dict(task.groups),
        "cluster": task.cluster,
    }
    if episode is None:
        return Result(**known, status="not_asked")
    status, error, verdict = episode.status, episode.error, None
    try:
        if episode.status == "failed":
            verdict = Verdict(outcome="failed", note=episode.error)
        elif episode.status == "answered":
            text = episode.text
            verdict = scorer.score(task, text) if isinstance(task, SqlTask) else score_contract(task, text)
    except BadTaskError as fault:
        return Result(**known, status="bad_task", error=str(fault), text=episode.text, steps=episode.steps)
    copied = (
        "text",
        "steps",
        "turns",
        "tool_errors",
        "prompt_tokens",
        "completion_tokens",
        "seconds",
        "pages_cut",
    )
    done = {name: getattr(episode, name) for name in copied}
    return Result(**known, **done, status=status, error=error, verdict=verdict)


def summary(run: Mapping[str, Any], policies: Sequence[str], results: Sequence[Result]) -> Report:
    """The report on all results."""
    divisions = dict.fromkeys(name for one in results for name in one.groups)
    statuses = Counter(one.status for one in results)
    outcomes = Counter(one.verdict.outcome for one in results if one.verdict is not None)
    return Report(
        run=dict(run),
        policies=tuple(dict.fromkeys(policies)),
        tasks=len(results),
        scored=sum(one.verdict is not None for one in results),
        invalid=statuses["invalid"],
        bad_tasks=statuses["bad_task"],
        not_asked=statuses["not_asked"],
        cut=sum(one.pages_cut > 0 for one in results),
        outcomes=dict(outcomes.most_common()),
        overall=figures(results),
        by={name: _divided(results, name) for name in divisions},
        results=tuple(results),
    )


def _divided(results: Sequence[Result], division: str) -> dict[str, dict[str, Figure]]:
    parts: dict[str, list[Result]] = {}
    for one in results:
        parts.setdefault(one.groups.get(division, "none"), []).append(one)
    return {part: figures(found) for part, found in sorted(parts.items())}


def page(report: Report) -> str:
    """The report as HTML, in one file, without scripts."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    metrics = [metric for metric in METRICS if metric.name in report.overall]
    return environment.get_template("report.html").render(
        report=report,
        metrics=metrics,
        examples=_examples(report.results),
        unscored=[one for one in report.results if one.verdict is None and one.status != "not_asked"],
    )


def _examples(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Of each wrong outcome the worst: those on which most was spent."""
    found: dict[str, list[Result]] = {}
    for outcome in _WORST_FIRST:
        wrong = [one for one in results if one.verdict is not None and one.verdict.outcome == outcome]
        wrong.sort(key=lambda one: (-one.turns, -one.completion_tokens, one.task_id))
        if wrong:
            found[outcome] = wrong[:_EXAMPLES]
    return found
