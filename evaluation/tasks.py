"""What is asked, and what counts as right. `evaluation.formats` reads tasks from files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Cell = str | int | float | None
AnswerKind = Literal["value", "span", "none"]


@dataclass(frozen=True)
class SqlTask:
    """A question to a database. An answer is right if it returns what one of `golds` does, on all `databases` alike.

    Without `golds` the right rows stand in `rows`; without either the question has no answer. `refusals` are queries
    that, by the words of the task itself, say so as well. `databases` are instances of one schema, the first being the
    one that the agent works on; empty where the deployment's own are meant.
    """

    id: str
    question: str
    databases: tuple[Path, ...]
    golds: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] | None = None
    refusals: tuple[str, ...] = ()
    ordered: bool = False
    evidence: str = ""  # what the asker knows beside the question: definitions, today's date
    groups: Mapping[str, str] = field(
        default_factory=dict
    )  # by what reports are divided, and the task's part in it
    cluster: str = ""  # tasks of one cluster stand and fall together

    @property
    def answerable(self) -> bool:
        """Whether the database has the answer."""
        return bool(self.golds) or self.rows is not None

    @property
    def asked(self) -> str:
        """What the agent is asked."""
        return f"{self.question}\n\n{self.evidence}" if self.evidence else self.question

    @property
    def gold(self) -> str:
        """What is right, for people."""
        if self.golds:
            return self.golds[0]
        return "no answer: refuse" if self.rows is None else f"rows: {list(self.rows[:5])}"


@dataclass(frozen=True)
class Evidence:
    """A passage of a contract, from `page` to `page_end` (the first page is 1)."""

    text: str
    page: int
    page_end: int


@dataclass(frozen=True)
class ContractTask:
    """A question about one contract. `evidence` is every passage that answers it; without an answer there is none."""

    id: str
    question: str
    document: str
    path: Path
    answer: str | None
    answer_kind: AnswerKind
    evidence: tuple[Evidence, ...]
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def answerable(self) -> bool:
        """Whether the contract has the answer."""
        return self.answer is not None

    @property
    def asked(self) -> str:
        """What the agent is asked."""
        return self.question

    @property
    def gold(self) -> str:
        """What is right, for people."""
        if self.answer is None:
            return "not in the contract: say so"
        pages = sorted({page for one in self.evidence for page in range(one.page, one.page_end + 1)})
        return f"{self.answer} (page {', '.join(map(str, pages))})"

    @property
    def cluster(self) -> str:
        """Questions about one contract stand and fall together."""
        return self.document


Task = SqlTask | ContractTask


@dataclass(frozen=True)
class TaskSet:
    """The tasks of a file. `digest` is of its bytes."""

    path: Path
    format: str
    digest: str
    tasks: tuple[Task, ...]
