"""What scoring finds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal[
    "correct",  # what the task holds to be right
    "correct_refusal",  # refused what has no answer
    "wrong",  # another answer
    "sql_error",  # a query that does not run
    "wrong_refusal",  # refused what has an answer
    "hallucination",  # answered what has no answer
    "malformed",  # not in a form that can be read
    "failed",  # the agent ended without an answer, by its own fault (e.g. the context overflowed)
]
CORRECT: frozenset[Outcome] = frozenset({"correct", "correct_refusal"})
REFUSED: frozenset[Outcome] = frozenset({"correct_refusal", "wrong_refusal"})


class BadTaskError(Exception):
    """What the task holds to be right cannot be evaluated: nothing is scored by it."""


class Verdict(BaseModel):
    """The outcome of one episode, and what else was found about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Outcome
    note: str = Field("", description="Why, in words.")
    empty_gold: bool = Field(
        default=False, description="Every accepted query returns nothing: to agree says little."
    )
    page_correct: bool | None = Field(
        None, description="Some quote stands on the page it names, and that is a page of the evidence."
    )
    quotes_exist: bool | None = Field(
        None, description="All quotes stand on the pages they name; None: none was given."
    )

    @property
    def correct(self) -> bool:
        """Whether the user got the right answer."""
        return self.outcome in CORRECT
