"""Metrics: by what, and of what, people rate an agent. A manifest declares them; here is what one accepts."""

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feedback.events import Scalar

Level = Literal["request", "episode", "call"]
LEVELS: tuple[Level, ...] = get_args(Level)


class Section(BaseModel):
    """A table of a manifest: what is not known in it is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scale(Section):
    """True or false, a number in a range, or one of several words."""

    type: Literal["boolean", "float", "categorical"]
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _range_where_needed(self) -> "Scale":
        if self.type == "float" and (self.minimum is None or self.maximum is None):
            raise ValueError("a float metric needs minimum and maximum")
        if self.type == "categorical" and len(self.categories) < 2:
            raise ValueError("a categorical metric needs at least two categories")
        return self

    def accepts(self, value: object) -> bool:
        """Whether a value is of this type and in its range."""
        if self.type == "boolean":
            return isinstance(value, bool)
        if self.type == "categorical":
            return value in self.categories
        assert self.minimum is not None and self.maximum is not None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.minimum <= float(value) <= self.maximum  # type: ignore[arg-type]  # narrowed above

    def expectation(self) -> str:
        """What `accepts` wants, in words for an error message."""
        if self.type == "boolean":
            return "true or false"
        if self.type == "categorical":
            return f"one of {', '.join(self.categories)}"
        return f"a number from {self.minimum:g} to {self.maximum:g}"


class Metric(Section):
    """What people may rate: at one level, on one scale or, as a rubric, on one for each of its parts.

    `optimize` says which direction is better.
    """

    type: Literal["boolean", "float", "categorical", "rubric"]
    level: Level = Field("request", description="What is rated: a request, a whole episode, or one call.")
    optimize: Literal["max", "min"] = "max"
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()
    parts: dict[str, Scale] = Field({}, description="Of a rubric: what is rated separately, by its name.")

    @model_validator(mode="after")
    def _parts_or_a_scale(self) -> "Metric":
        if (self.type == "rubric") != bool(self.parts):
            raise ValueError("a rubric needs parts, and only a rubric has them")
        if self.type != "rubric":
            self._scale()
        elif self.categories or self.minimum is not None or self.maximum is not None:
            raise ValueError("a rubric has ranges and categories in its parts only")
        return self

    def _scale(self) -> Scale:
        assert self.type != "rubric"
        return Scale(type=self.type, minimum=self.minimum, maximum=self.maximum, categories=self.categories)

    def accepts(self, value: Scalar | Mapping[str, object]) -> bool:
        """Whether a rating's value is of this metric's type and in its range; of a rubric, every part of it is."""
        if self.type != "rubric":
            return not isinstance(value, Mapping) and self._scale().accepts(value)
        return (
            isinstance(value, Mapping)
            and value.keys() == self.parts.keys()
            and all(scale.accepts(value[name]) for name, scale in self.parts.items())
        )

    def expectation(self) -> str:
        """What `accepts` wants, in words for an error message."""
        if self.type != "rubric":
            return self._scale().expectation()
        parts = (f"{name}: {scale.expectation()}" for name, scale in self.parts.items())
        return f"an object with exactly {'; '.join(parts)}"


# What can be rated where no manifest speaks: answers of plain models, of other providers', of other people's agents.
DEFAULT_METRICS: Mapping[str, Metric] = {
    "correct": Metric(type="boolean"),
    "resolved": Metric(type="boolean", level="episode"),
    "useful": Metric(type="boolean", level="call"),
}
