"""What a gateway must be told, and nothing that it can find out by itself."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class ConfigError(Exception):
    """A configuration that cannot be used. The message names the file, the field and the fault."""


class GatewayConfig(BaseModel):
    """The configuration of one gateway process. Relative paths are relative to the working directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8080, ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one.")
    vllm_url: str = Field(
        "http://127.0.0.1:8081",
        pattern=r"^https?://",
        description="Base URL of vLLM, without /v1. Its control endpoints have no authentication: keep it private.",
    )
    more_vllm_urls: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = Field(
        (), description="Further vLLM servers with the same model: requests are spread over all of them."
    )
    replica_limit: int = Field(
        512, ge=1, description="Requests that one vLLM server is given at once; beyond, on all of them: 429."
    )
    base_model: str = Field(
        min_length=1, description="What vLLM calls the base model (`--served-model-name`)."
    )
    base_digest: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,80}$",
        description="Digest of the base model's weights; the base policy of an agent is `<agent>@base-<digest>`.",
    )
    agents: tuple[Path, ...] = Field(min_length=1, description="Folders that each hold a `manifest.toml`.")
    knowledge: Path = Field(description="Knowledge file (TOML) that the agents retrieve from.")
    qdrant_url: str | None = Field(
        None, description="Qdrant server; None: the knowledge is indexed in this process."
    )
    store_url: str = Field(
        description="Database of requests, ratings, policies and keys: sqlite:///path/to/file."
    )
    outbox_path: Path = Field(description="File of the durable queue in front of the store.")
    outbox_max_bytes: int | None = Field(
        None, ge=16_384, description="Size limit of the outbox in bytes; None: as large as the disk."
    )
    collector_process: bool = Field(
        default=False, description="Write the store in a process of its own: answers do not share its core."
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1_024, description="Largest request body, in bytes; beyond: 413."
    )
    max_concurrent: int = Field(
        256, ge=1, description="Requests to agents and models in progress at once; beyond: 429."
    )
    capture: bool = Field(
        default=True, description="Record requests to plain models; agents are always recorded."
    )
    plain_seconds: float = Field(
        600.0,
        gt=0,
        description="Longest time for an answer of a plain model, in seconds; a header may say less.",
    )
    probe_tolerance: float = Field(
        0.15,
        gt=0,
        description="Largest mean |Δ logprob| (nats per token) between a checkpoint's probes and the loaded adapter.",
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="How long a shutdown waits for requests in progress, in seconds."
    )

    @classmethod
    def load(cls, path: Path) -> "GatewayConfig":
        """Read a JSON file. Raises `ConfigError`."""
        try:
            return cls.model_validate(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:  # ValidationError, JSON and Unicode errors are ValueErrors
            detail = str(error)
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False)[0]
                detail = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise ConfigError(f"{path}: {detail}") from error

    @property
    def vllm_urls(self) -> tuple[str, ...]:
        """Every vLLM server, once."""
        return tuple(dict.fromkeys(url.rstrip("/") for url in (self.vllm_url, *self.more_vllm_urls)))

    def base_policy(self, agent: str) -> str:
        """The policy of an agent that has learned nothing yet."""
        return f"{agent}@base-{self.base_digest}"
