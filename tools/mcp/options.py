"""One MCP server as an operator configures it."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"  # of a server, in the settings
_INHERITED = ("HOME", "LANG", "PATH", "TMPDIR")  # what programs need to run at all, and what is no secret


class McpError(Exception):
    """A server that cannot be used as configured. The message names the server, the fault and the mend."""


class McpOptions(BaseModel):
    """How a server is reached and what it may cost. Either `command` or `url` is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = Field(
        (), description="Program and arguments of a server that is started here and spoken to over its pipes."
    )
    url: str | None = Field(
        None, pattern=r"^https?://", description="Address of a server that speaks streamable HTTP."
    )
    folder: Path | None = Field(None, description="Working directory of `command`; None: ours.")
    env: dict[str, str] = Field(
        {},
        description="Environment of `command`: its variable = the name of OURS that holds the value. "
        f"It has these, {', '.join(_INHERITED)}, and nothing else.",
    )
    headers: dict[str, str] = Field(
        {}, description="Headers of every request to `url`: name = the name of OUR variable with the value."
    )
    digests: dict[str, str] = Field(
        {},
        description="Digests of the tools as they were approved (`flywheel agents check` shows them): a tool that has "
        "another one is refused. Empty: what it was at the start holds until the next.",
    )
    connect_seconds: float = Field(
        20.0, gt=0, le=600, description="Longest time to start, shake hands and list the tools."
    )
    seconds: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description="Longest wait for a call; calls that wait so long in vain have the server started again.",
    )
    max_message_bytes: int = Field(
        1_048_576, ge=4_096, description="Longest message that is read; a server that sends more is left."
    )
    max_characters: int = Field(
        12_000,
        ge=200,
        description="Of a result, what a model gets to read; the rest is cut, and that is said.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "McpOptions":
        if bool(self.command) == (self.url is not None):
            raise ValueError("give command or url, and not both")
        if self.command and self.headers:
            raise ValueError("headers are for a url; a command has env")
        if self.url is not None and (self.env or self.folder):
            raise ValueError("env and folder are for a command; a url has headers")
        return self

    def environment(self) -> dict[str, str]:
        """The whole environment of `command`. Raises `McpError` where a variable of ours is not set."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return inherited | _values(self.env)

    def header_values(self) -> dict[str, str]:
        """The headers with what their variables hold. Raises `McpError` where one is not set."""
        return _values(self.headers)


def _values(names: Mapping[str, str]) -> dict[str, str]:
    for name in names.values():
        if name not in os.environ:
            raise McpError(f"the environment variable {name} is not set")
    return {theirs: os.environ[ours] for theirs, ours in names.items()}
