"""Where an operator lets agents' tools look, and which tenants' requests may."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tools.mcp.options import NAME, McpOptions
from tools.sql.options import DatabaseOptions


class Restricted(BaseModel):
    """Something that not every tenant may use."""

    tenants: tuple[str, ...] | None = Field(
        None, min_length=1, description="Whose requests may use it; None: everybody's."
    )

    def open_to(self, tenant: str) -> bool:
        """Whether the tenant's requests may use it."""
        return self.tenants is None or tenant in self.tenants


class DatabaseSource(DatabaseOptions, Restricted):
    """A database that agents may read."""


class McpSource(McpOptions, Restricted):
    """An MCP server whose tools agents may call."""


class DocumentsOptions(BaseModel):
    """Documents that agents may read. Each tenant has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Path("var/documents")


Databases = dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")], DatabaseSource]
McpServers = dict[Annotated[str, Field(pattern=NAME)], McpSource]
Source = TypeVar("Source", bound=Restricted)


def open_to(sources: Mapping[str, Source], tenant: str) -> list[str]:
    """The names of those that a tenant's requests may use."""
    return sorted(name for name, source in sources.items() if source.open_to(tenant))
