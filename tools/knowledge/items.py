"""What there is to be found: items of three kinds, and what is found for one question."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["schemas", "examples", "heuristics"]


class KnowledgeError(Exception):
    """Knowledge that cannot be read or kept. The message names the file, the place in it and the fault."""


@dataclass(frozen=True)
class Item:
    """One piece of knowledge: what goes into the prompt, and further words under which it is found."""

    kind: Kind
    text: str = ""
    question: str = ""
    answer: str = ""
    keywords: str = ""

    @property
    def indexed(self) -> str:
        """The words under which the item is found."""
        return f"{self.text} {self.question} {self.keywords}"


@dataclass(frozen=True)
class Context:
    """What was retrieved for one question, best first."""

    schemas: tuple[Item, ...]
    examples: tuple[Item, ...]
    heuristics: tuple[Item, ...]
