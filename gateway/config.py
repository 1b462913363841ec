"""What a gateway must be told, and nothing that it can find out by itself."""

import json
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from feedback.bus.kafka.options import KafkaOptions
from feedback.policies import base_policy
from feedback.redaction import RedactionOptions
from feedback.retention import RetentionOptions
from gateway.limits.config import LimitsConfig
from gateway.sources import Databases, DocumentsOptions, McpServers
from tools.embedding import EmbeddingOptions

MOST_WORKERS = 64
_LEAST_OUTBOX = 16_384  # bytes


class ConfigError(Exception):
    """A configuration that cannot be used. The message names the file, the field and the fault."""


class Bounds(BaseModel):
    """The largest request that is taken. Each field says what a client hears beyond it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_header_bytes: int = Field(
        32_768, ge=1_024, description="Request line and headers together, in bytes; beyond: 431."
    )
    max_depth: int = Field(32, ge=8, le=200, description="Nesting of lists and objects; beyond: 400.")
    max_messages: int = Field(1_000, ge=1, description="Messages, or items of an input; beyond: 400.")
    max_text_characters: int = Field(
        1_000_000, ge=1, description="Characters of all text in a body together; beyond: 413."
    )
    max_generation_tokens: int = Field(
        131_072, ge=1, description="Tokens that may be asked for, over all choices of an answer; beyond: 400."
    )


class TelemetryOptions(BaseModel):
    """What is told about requests, and to whom. Traces go out only where an endpoint is named, metrics are asked for.

    The standard variables hold as well: OTEL_EXPORTER_OTLP_* (endpoint, headers, certificate, time-out, compression),
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_SCHEDULE_DELAY, OTEL_SDK_DISABLED.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Base URL of an OTLP/HTTP receiver; None: OTEL_EXPORTER_OTLP_ENDPOINT, and without it no traces.",
    )
    content: bool = Field(
        default=False,
        description="Put what people, agents and tools wrote into spans: messages, arguments, results, comments.",
    )
    sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the traces beginning here that is exported; a caller decides about its own.",
    )
    queue: int = Field(
        4_096,
        ge=512,
        description="Spans that wait for export at most; beyond, the oldest are dropped, with a warning.",
    )
    metrics: Literal["local", "open", "off"] = Field(
        "local",
        description="/metrics answers on loopback, else by a key with the scope operate; open: anybody; off: nobody.",
    )


class IngestOptions(BaseModel):
    """How much of what others export by OpenTelemetry is taken at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_bytes: int = Field(
        4_194_304, ge=1_024, description="Largest export as it is sent, in bytes; beyond: 413."
    )
    max_unpacked_bytes: int = Field(
        8_388_608, ge=1_024, description="Largest export when it is unpacked, in bytes; beyond: 413."
    )
    max_records: int = Field(5_000, ge=1, description="Spans or log records in one export; beyond: 413.")
    max_concurrent: int = Field(16, ge=1, description="Exports at once, in each worker; beyond: 429.")


class ExternalModel(BaseModel):
    """A model of another provider. Whatever is asked of it leaves this network; without an entry nothing does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$", description="What clients send as their model."
    )
    model: str = Field(
        min_length=1, max_length=200, description="LiteLLM's name of it: `openai/gpt-5`, `anthropic/…`."
    )
    api_base: str | None = Field(
        None, pattern=r"^https?://", description="Base URL; None: the provider's own, which LiteLLM knows."
    )
    key_variable: str | None = Field(
        None, description="Environment variable that holds the provider's key; None: it needs none."
    )
    input_price: float | None = Field(
        None, ge=0, description="US dollars per million tokens read; None: by LiteLLM's list."
    )
    output_price: float | None = Field(
        None, ge=0, description="US dollars per million tokens written; None: by LiteLLM's list."
    )
    timeout_seconds: float = Field(60.0, gt=0, description="Longest wait for a byte of one attempt's answer.")
    retries: int = Field(2, ge=0, le=10, description="Further attempts after a failure that may pass.")
    fallbacks: tuple[str, ...] = Field(
        (), description="Names of other external models to ask, in this order, when all attempts have failed."
    )
    cooldown_after: int = Field(
        3,
        ge=0,
        description="Failures in a minute that are borne; one more, and only its fallbacks are asked.",
    )
    cooldown_seconds: float = Field(30.0, gt=0, description="For how long it is then left alone.")

    @model_validator(mode="after")
    def _both_prices_or_none(self) -> "ExternalModel":
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give input_price and output_price, or neither")
        return self


def _fit_together(models: tuple[ExternalModel, ...]) -> tuple[ExternalModel, ...]:
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError("two external models have the same name")
    for model in models:
        if unknown := set(model.fallbacks) - (set(names) - {model.name}):
            raise ValueError(f"fallbacks of {model.name}: no other one is called {min(unknown)}")
    return models


ExternalModels = Annotated[tuple[ExternalModel, ...], AfterValidator(_fit_together)]


class GatewayConfig(BaseModel):
    """The configuration of one gateway. Relative paths are relative to the working directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8080, ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=0,
        le=MOST_WORKERS,
        description="Processes that answer, behind one port; 0: one for each core that the gateway may use.",
    )
    vllm_url: str = Field(
        "http://127.0.0.1:8081",
        pattern=r"^https?://",
        description="Base URL of vLLM, without /v1. Its control endpoints have no authentication: keep it private.",
    )
    more_vllm_urls: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = Field(
        (), description="Further vLLM servers with the same model: requests are spread over all of them."
    )
    replica_limit: int = Field(
        512,
        ge=1,
        description="Requests that one vLLM server is given at once, by all workers; beyond, on all of them: 429.",
    )
    base_model: str = Field(
        min_length=1, description="What vLLM calls the base model (`--served-model-name`)."
    )
    base_digest: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,80}$",
        description="Digest of the base model's weights; the base policy of an agent is `<agent>@base-<digest>`.",
    )
    agents: tuple[Path, ...] = Field(min_length=1, description="Folders that each hold a `manifest.toml`.")
    turns: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(
        {},
        description="Model calls of an agent by its name, in place of what its manifest says; 1: no tools.",
    )
    databases: Databases = Field({}, description="Databases that agents may read, by name.")
    documents: DocumentsOptions = DocumentsOptions()
    mcp_server: bool = Field(
        default=False, description="Offer the agents and their tools at /mcp to whoever speaks MCP."
    )
    mcp: McpServers = Field({}, description="MCP servers whose tools agents may call, by name.")
    embedding: EmbeddingOptions = Field(
        EmbeddingOptions(), description="What makes texts searchable by meaning."
    )
    knowledge: Path = Field(description="Knowledge file (TOML) that the agents retrieve from.")
    knowledge_library: Path | None = Field(
        None, description="Folder of added knowledge, whose active version is retrieved from as well."
    )
    knowledge_dense: bool = Field(
        default=False, description="Find items by meaning, too, with `embedding`; false: by words alone."
    )
    qdrant_url: str | None = Field(
        None, description="Qdrant server; None: the knowledge is indexed in this process."
    )
    store_url: str = Field(
        description="Database of requests, ratings, policies and keys: sqlite:///path/to/file."
    )
    operator_tenant: str = Field(
        "default",
        min_length=1,
        max_length=200,
        description="Whose keys may operate policies and the gateway, which all tenants share.",
    )
    kafka: KafkaOptions | None = Field(
        None,
        description="Kafka between the outboxes and the store; None: they are emptied straight into the store.",
    )
    outbox_path: Path = Field(
        description="File of the durable queue in front of the store; further workers' lie beside it, numbered."
    )
    outbox_max_bytes: int | None = Field(
        None, ge=_LEAST_OUTBOX, description="Size limit of the outbox in bytes; None: as large as the disk."
    )
    delivery_process: bool = Field(
        default=False,
        description="Write outbox and store in processes of their own: answers do not share their core.",
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1_024, description="Largest request body, in bytes; beyond: 413."
    )
    bounds: Bounds = Field(Bounds(), description="Everything else that bounds a request.")
    max_concurrent: int = Field(
        256,
        ge=1,
        description="Requests to agents and models in progress at once, in all workers; beyond: 429.",
    )
    max_background: int = Field(
        64, ge=1, description="Responses made in the background at once, in all workers; beyond: 429."
    )
    idempotency_hours: float = Field(
        24.0, gt=0, le=8_760, description="How long an answer is kept for its Idempotency-Key, in hours."
    )
    idempotency_max_bytes: int = Field(
        1_048_576,
        ge=1,
        description="Largest answer that is kept so, in bytes; a larger one cannot be replayed.",
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="Rates and budgets of keys and tenants.")
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
    telemetry: TelemetryOptions = TelemetryOptions()
    ingest: IngestOptions = Field(IngestOptions(), description="What others may tell by OpenTelemetry.")
    redaction: RedactionOptions = Field(
        RedactionOptions(),
        description="What is replaced in texts before they are recorded; nothing unless set.",
    )
    retention: RetentionOptions = Field(
        RetentionOptions(), description="For how long requests and ratings are kept; for ever unless set."
    )
    external: ExternalModels = Field(
        (), description="Models of other providers that may be asked by name; none unless named here."
    )

    @model_validator(mode="after")
    def _each_worker_has_its_share(self) -> "GatewayConfig":
        for name in ("max_concurrent", "replica_limit"):
            if getattr(self, name) < self.processes:
                raise ValueError(f"{name}: {self.processes} workers share it, so at least {self.processes}")
        if self.outbox_max_bytes is not None and self.outbox_max_bytes < _LEAST_OUTBOX * self.processes:
            raise ValueError(
                f"outbox_max_bytes: {self.processes} workers share it, {_LEAST_OUTBOX} for each at least"
            )
        return self

    @field_validator("vllm_url", "more_vllm_urls")
    @classmethod
    def _have_ports(cls, urls: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for url in (urls,) if isinstance(urls, str) else urls:
            urlsplit(url).port  # noqa: B018  # raises ValueError for what is no port
        return urls

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
    def processes(self) -> int:
        """How many workers that makes here."""
        return self.workers or min(len(os.sched_getaffinity(0)), MOST_WORKERS)

    @property
    def vllm_urls(self) -> tuple[str, ...]:
        """Every vLLM server, once."""
        return tuple(dict.fromkeys(url.rstrip("/") for url in (self.vllm_url, *self.more_vllm_urls)))

    def base_policy(self, agent: str) -> str:
        """The policy of an agent that has learned nothing yet."""
        return base_policy(agent, self.base_digest)
