"""An agent is a manifest and a prompt: data, no code.

A manifest lies in its own folder as `manifest.toml` beside the prompt template it names. It says what the agent is
called, what it may retrieve, what its answer looks like, and within which limits it works.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field

from agents.metrics import Metric, Section


class ManifestError(Exception):
    """A manifest that cannot be used. The message names the file, the field and the mend."""


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


class Agent(Section):
    """A loaded manifest: everything that the loop needs to know about one agent."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    description: str
    prompt: str = Field(description="System prompt template (Jinja): sees schemas, examples, heuristics.")
    response_schema: dict[str, Any]
    quotas: Quotas = Quotas()
    limits: Limits = Limits()
    metrics: dict[str, Metric]

    @classmethod
    def load(cls, folder: Path) -> "Agent":
        """Read `manifest.toml` and the prompt that it names. Raises `ManifestError`."""
        path = folder / "manifest.toml"
        try:
            data = tomllib.loads(path.read_text("utf-8"))
            data["prompt"] = (folder / data["prompt"]).read_text("utf-8")
            data["response_schema"] = json.loads(data["response_schema"])
            return cls.model_validate(data)
        except KeyError as error:
            raise ManifestError(f"{path}: {error.args[0]} is missing") from error
        except (OSError, TypeError, ValueError) as error:  # TOML, JSON and pydantic: ValueError
            raise ManifestError(f"{path}: {error}") from error
