"""Expands the templates of `templates.toml` into the questions of the train, dev and test splits.

Two things are unseen outside the train split. A "phrasing" question asks for what a train template asks for,
in words the train split lacks; a "template" question asks for something no train template asks for. The two
are told apart because a model that only sees through paraphrases does the first and fails the second.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

TEMPLATES = Path(__file__).with_name("templates.toml")

Level = Literal["simple", "grouped", "dated", "joined", "unanswerable"]
Split = Literal["train", "dev", "test"]
Novelty = Literal["phrasing", "template"]

# Where each phrasing of a train template goes; those of dev and test templates stay together.
_TRAIN: tuple[Split, ...] = ("train", "train", "train", "train")
_PLACES: tuple[Split, ...] = (*_TRAIN, "dev", "test", "test", *_TRAIN)


@dataclass(frozen=True)
class Question:
    """One question and its gold answer: a query, or the reason why there can be none."""

    id: str
    text: str
    sql: str | None
    refusal: str | None
    template: str
    level: Level
    split: Split
    novelty: Novelty


@dataclass(frozen=True)
class Template:
    """A family of questions that differ in wording and in slot values."""

    name: str
    split: Split
    level: Level
    phrasings: list[str]
    sql: str | None = None
    refusal: str | None = None

    def slots(self, values: dict[str, list[str]]) -> list[str]:
        """Its slots, found by use, so that none can be declared and forgotten."""
        return [slot for slot in values if any(f"{{{slot}}}" in phrasing for phrasing in self.phrasings)]


@cache
def load() -> tuple[tuple[Template, ...], dict[str, list[str]], dict[str, dict[str, float]]]:
    """The templates, the values of each slot, and how many values a phrasing gets by split and level."""
    document: dict[str, Any] = tomllib.loads(TEMPLATES.read_text())
    return tuple(Template(**row) for row in document["templates"]), document["slots"], document["fans"]


def questions(split: Split) -> list[Question]:
    """The questions of one split, always in the same order."""
    return [question for template in load()[0] for question in _expand(template) if question.split == split]


def _expand(template: Template) -> list[Question]:
    _, values, fans = load()
    slots = template.slots(values)
    fillings = list(product(*(values[slot] for slot in slots)))
    # Each template starts elsewhere in its values, or every question would hold the first ones.
    turn = crc32(template.name.encode()) % len(fillings)
    found: list[Question] = []
    for index, phrasing in enumerate(template.phrasings):
        place = _PLACES[index] if template.split == "train" else template.split
        novelty: Novelty = "phrasing" if template.split == "train" else "template"
        fan = fans[f"{place}_{novelty}"][template.level]
        # A fan of 1.5 gives one value and two values in turn.
        number = int((index + 1) * fan) - int(index * fan)
        for _ in range(min(number, len(fillings))):
            filling = fillings[turn % len(fillings)]
            # A step of one within a slot, yet through every pair of two slots.
            turn += 1 if len(slots) < 2 else len(values[slots[-1]]) + 1
            named = dict(zip(slots, filling, strict=True))
            found.append(
                Question(
                    id=":".join([template.name, str(index), *filling]),
                    text=phrasing.format(**named),
                    sql=template.sql and template.sql.format(**named),
                    refusal=template.refusal,
                    template=template.name,
                    level=template.level,
                    split=place,
                    novelty=novelty,
                )
            )
    return found
