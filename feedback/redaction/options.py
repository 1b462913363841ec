"""What is redacted, as it is configured."""

import importlib
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feedback.redaction.presidio import PresidioRules
from feedback.redaction.rules import Builtin

_PATTERN_BYTES = 2**20  # of one expression's automaton, where re2's own limit is 8 MiB
RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class RedactionRules(BaseModel):
    """What is looked for in the texts of one tenant. What is found by the rule `email` becomes `[EMAIL]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Builtin, ...] = Field((), description="Rules that come with Flywheel.")
    patterns: dict[RuleName, Annotated[str, Field(min_length=1, max_length=1_000)]] = Field(
        {},
        description="Expressions of your own by name, in RE2's syntax, in which no text takes them long (no "
        "look-around, no back-references). They need the extra `redaction`.",
    )
    presidio: PresidioRules | None = Field(
        None, description="Names, places and what else Presidio knows; needs the extra `presidio`."
    )

    @model_validator(mode="after")
    def _can_be_compiled(self) -> "RedactionRules":
        for name, pattern in self.patterns.items():
            if name in get_args(Builtin):
                raise ValueError(f"patterns.{name}: a rule of Flywheel's has this name; choose another")
            compiled(name, pattern)
        return self


class RedactionOptions(RedactionRules):
    """For tenants that are not named, and for those that are: theirs alone, without what stands above."""

    tenants: dict[str, RedactionRules] = Field(
        {}, description="By tenant, in place of the rules of all others."
    )


def compiled(name: str, pattern: str) -> Any:
    """An expression of google-re2's. Raises `ValueError`: what is wrong with it, or that it needs the extra."""
    try:
        re2 = importlib.import_module("re2")
    except ImportError as error:
        raise ValueError(
            f"patterns.{name}: expressions of your own need google-re2: pip install 'flywheel[redaction]'"
        ) from error
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    try:
        expression = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"patterns.{name}: {said}") from error
    if expression.fullmatch(""):
        raise ValueError(f"patterns.{name}: it matches the empty text, which is everywhere")
    return expression
