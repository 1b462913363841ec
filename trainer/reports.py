"""What an evaluation found: one report per contender, all on the same tasks."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluation.statistics import wilson
from trainer.rewards import Outcome


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskResult(_Record):
    """One task's outcome; `tokens` is the length of the answer. An invalid episode has outcome None and counts as
    wrong, since the user got no answer.
    """

    task_id: str
    tags: dict[str, str]
    answerable: bool
    outcome: Outcome | None
    text: str
    tokens: int

    @property
    def correct(self) -> bool:
        """Whether the answer was right."""
        return self.outcome in ("correct", "correct_refusal")


class Accuracy(_Record):
    """A proportion with its 95 % interval (Wilson), from `n` tasks."""

    accuracy: float
    low: float
    high: float
    n: int


class Report(_Record):
    """One contender on one task set."""

    contender: str
    policy: str
    seconds: float
    results: tuple[TaskResult, ...]

    @property
    def accuracy(self) -> Accuracy:
        """Over all tasks."""
        return accuracy(self.results)

    def by(self, tag: str) -> dict[str, Accuracy]:
        """Over the tasks of each value of a tag."""
        values = dict.fromkeys(result.tags.get(tag, "") for result in self.results)
        return {
            value: accuracy([r for r in self.results if r.tags.get(tag, "") == value]) for value in values
        }

    @property
    def outcomes(self) -> dict[str, int]:
        """How often each outcome occurred."""
        return dict(Counter(result.outcome or "invalid" for result in self.results))

    @property
    def refusal_recall(self) -> float | None:
        """Of the unanswerable questions, the part that was refused; None without such questions."""
        asked = [result for result in self.results if not result.answerable]
        return sum(result.correct for result in asked) / len(asked) if asked else None

    @property
    def wrong_refusals(self) -> float:
        """Of the answerable questions, the part that was refused."""
        asked = [result for result in self.results if result.answerable]
        return sum(result.outcome == "wrong_refusal" for result in asked) / max(len(asked), 1)

    @property
    def refusal_skill(self) -> float | None:
        """Recall of refusals minus wrong refusals (Youden's J): 0 for whoever refuses everything, or nothing."""
        recall = self.refusal_recall
        return None if recall is None else recall - self.wrong_refusals

    @property
    def mean_tokens(self) -> float:
        """Length of an answer."""
        return sum(result.tokens for result in self.results) / max(len(self.results), 1)

    def save(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: Path) -> "Report":
        """What `save` wrote."""
        return cls.model_validate_json(path.read_text())


def accuracy(results: tuple[TaskResult, ...] | list[TaskResult]) -> Accuracy:
    """The part that is correct."""
    right, n = sum(result.correct for result in results), len(results)
    low, high = wilson(right, n)
    return Accuracy(accuracy=right / n if n else 0.0, low=low, high=high, n=n)
