"""An agent is a manifest and a prompt: data, no code.

A manifest lies in its own folder as `manifest.toml` beside the prompt template it names. It says what the agent is
called, what it may retrieve, which tools it is offered, what its answer looks like, and within which limits it works.
"""

import tomllib
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from agents import faults
from agents.metrics import Metric, Section


class ManifestError(Exception):
    """A manifest that cannot be used. The message names, for each fault, the file, the line, the field and the mend."""


class Quotas(Section):
    """How many items of each kind of knowledge go into the prompt."""

    schemas: int = Field(3, ge=0, le=20)
    examples: int = Field(2, ge=0, le=20)
    heuristics: int = Field(1, ge=0, le=20)


class Limits(Section):
    """What one request may cost."""

    max_tokens: int = Field(96, ge=1, le=32_768, description="Tokens generated per model call.")
    seconds: float = Field(60, gt=0, le=3_600, description="Wall clock of one request.")
    input_characters: int = Field(8_000, ge=1, description="Sum over the client's messages.")
    turns: int = Field(1, ge=1, le=100, description="Model calls; with 1, no tools are offered.")
    total_tokens: int | None = Field(
        None, ge=1, description="Tokens generated in one request; None: as many as its turns may take."
    )
    context_tokens: int | None = Field(
        None,
        ge=64,
        description="Prompt and answer of a model call together; beyond, old results of tools leave the prompt.",
    )

    @model_validator(mode="after")
    def _room_for_one_call(self) -> "Limits":
        if self.total_tokens is not None and self.total_tokens < self.max_tokens:
            raise ValueError(
                f"total_tokens must be at least max_tokens ({self.max_tokens}): the answer's share"
            )
        if self.context_tokens is not None and self.context_tokens <= self.max_tokens:
            raise ValueError(
                f"context_tokens must be more than max_tokens ({self.max_tokens}), which it includes"
            )
        return self


class ToolSource(Section):
    """Tools of one kind that the agent is offered."""

    source: str | None = Field(
        None,
        min_length=1,
        description="Where they look: a database or a collection by its name; None: the request's metadata say it.",
    )
    offer: tuple[str, ...] | None = Field(
        None, min_length=1, description="The tools by their names; None: all."
    )
    seconds: float = Field(10, gt=0, le=600, description="For one attempt of one call.")
    attempts: int = Field(2, ge=1, le=10, description="While a tool is unavailable.")


class McpTools(Section):
    """Tools of an MCP server that the agent is offered: those that are named, and no others."""

    offer: tuple[str, ...] = Field(min_length=1)
    seconds: float = Field(10, gt=0, le=600, description="For one attempt of one call.")
    attempts: int = Field(
        1, ge=1, le=10, description="While it is unavailable; 1, as a call may have had its effect."
    )


class Tools(Section):
    """All tools of an agent, by kind."""

    response_schema: dict[str, Any] | None = Field(
        None, description="What an answer looks like where tools were offered; None: as without them."
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=32_768,
        description="Tokens per model call where tools are offered; None: as without them.",
    )
    sql: ToolSource | None = None
    documents: ToolSource | None = None
    knowledge: ToolSource | None = None
    mcp: dict[str, McpTools] = Field({}, description="By their names under [mcp].")


class Agent(Section):
    """A loaded manifest: everything that the loop needs to know about one agent."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    description: str
    prompt: str = Field(
        description="System prompt template (Jinja): sees schemas, examples, heuristics, and the names of the tools."
    )
    response_schema: dict[str, Any]
    quotas: Quotas = Quotas()
    limits: Limits = Limits()
    tools: Tools = Tools()
    metrics: dict[str, Metric]

    def tokens_per_call(self, *, with_tools: bool) -> int:
        """How many tokens one model call may generate."""
        return (self.tools.max_tokens if with_tools else None) or self.limits.max_tokens

    @classmethod
    def load(cls, folder: Path) -> "Agent":
        """Read `manifest.toml` and the prompt that it names. Raises `ManifestError`, which tells all that is wrong."""
        path = folder / "manifest.toml"
        try:
            text = path.read_text("utf-8")
            data = tomllib.loads(text)
        except (OSError, ValueError) as error:  # TOML that is none: ValueError, which says the line
            raise ManifestError(f"{path}: {error}") from error
        found = [*faults.take_prompt(data, folder), *faults.take_schemas(data)]
        try:
            agent = cls.model_validate(data)
        except ValidationError as error:
            found += faults.invalid(error, cls)
        else:
            if not found:
                return agent
        told = [(faults.line_of(text, fault.path), fault) for fault in found]
        raise ManifestError(
            "\n".join(fault.told(path, line) for line, fault in sorted(told, key=itemgetter(0)))
        )
