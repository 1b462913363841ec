"""What Flywheel is told: `flywheel.toml`, overridden by the environment (`FLYWHEEL_GATEWAY__PORT=9000`).

Relative paths are relative to the settings file's folder, so that the command works from any directory. Everything
has a default: an empty file is a working configuration.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from deploy.errors import FlywheelError
from feedback.bus.kafka.options import KafkaOptions
from feedback.redaction import RedactionOptions
from feedback.retention import RetentionOptions
from gateway.config import MOST_WORKERS, Bounds, ExternalModels, IngestOptions, TelemetryOptions
from gateway.limits.config import LimitsConfig
from gateway.sources import Databases, DatabaseSource, DocumentsOptions, McpServers
from tools.embedding import EmbeddingOptions
from trainer.config import Options

FILE = "flywheel.toml"
SMALL_MODEL = Path("var/models/smollm2-135m")


class SettingsError(FlywheelError):
    """A setting that cannot be used. The message names the file or variable, the field and the fault."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewaySection(_Section):
    """Where clients reach Flywheel."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8080, ge=1, le=65_535)
    workers: int = Field(
        1,
        ge=0,
        le=MOST_WORKERS,
        description="Processes that answer, behind one port; 0: one for each core that Flywheel may use.",
    )
    operator_tenant: str = Field(
        "default", min_length=1, description="Whose keys may operate policies and the gateway itself."
    )
    max_body_bytes: int = Field(1_048_576, ge=1_024, description="Largest request body.")
    mcp: bool = Field(
        default=False, description="Offer the agents and their tools at /mcp, as an MCP server."
    )
    max_background: int = Field(64, ge=1, description="Responses made in the background at once.")
    idempotency_hours: float = Field(
        24.0, gt=0, le=8_760, description="How long an answer is kept for its Idempotency-Key."
    )
    idempotency_max_bytes: int = Field(1_048_576, ge=1, description="Largest answer that is kept so.")


class VllmSection(_Section):
    """The model server. It is started on loopback only: its control endpoints have no authentication."""

    manage: bool = Field(
        default=True, description="Start and stop it with the gateway; false: it runs at `url` already."
    )
    url: str | None = Field(None, description="None: http://127.0.0.1:port.")
    port: int = Field(8081, ge=1, le=65_535)
    more_urls: tuple[str, ...] = Field((), description="Further servers of the same model, run by others.")
    model: Path = Field(SMALL_MODEL, description="Folder of a Hugging Face model.")
    served_name: str = Field("base", description="What vLLM calls the model itself, beside its adapters.")
    device: Literal["cpu", "cuda"] = "cpu"
    max_model_len: int = Field(2_048, ge=64, description="Tokens of prompt and answer together.")
    max_num_seqs: int = Field(16, ge=1, description="Requests generated at once.")
    max_loras: int = Field(4, ge=1, description="Adapters that one batch may mix.")
    max_lora_rank: int = Field(8, ge=1)
    lora_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Layers that an adapter may change, by the end of their names. Never lm_head: see supervisor.",
    )
    tool_call_parser: str = Field(
        "hermes", min_length=1, description="How the model writes tool calls, by vLLM's name of the parser."
    )
    kv_cache_gib: float = Field(
        2.0, gt=0, description="GiB, on a CPU only; on a GPU vLLM takes what is free."
    )
    start_seconds: float = Field(
        600.0, gt=0, description="Seconds until a server that is not ready has failed."
    )
    extra_args: tuple[str, ...] = Field((), description="Further flags of vLLM's server, e.g. for a GPU.")

    @property
    def base_url(self) -> str:
        """Where the server is reached."""
        return (self.url or f"http://127.0.0.1:{self.port}").rstrip("/")


class FeedbackSection(_Section):
    """Where events are kept."""

    store_url: str = Field(
        "sqlite:///var/store.db",
        description="SQLAlchemy URL of a SQLite file, or of a database in PostgreSQL (postgresql://user@host/database).",
    )
    outbox: Path = Field(Path("var/outbox.db"), description="The gateway's durable queue; on a local disk.")
    collectors: int = Field(
        1,
        ge=0,
        le=64,
        description="Processes that `flywheel up` starts to write Kafka's events to the store; 0: others run them.",
    )


class AgentsSection(_Section):
    """Which agents are served."""

    folders: tuple[Path, ...] = Field((Path("agents/sql_analyst"),), min_length=1)
    turns: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(
        {},
        description="Model calls of an agent, by its name, in place of its manifest's; 1: it calls no tools.",
    )


class KnowledgeSection(_Section):
    """What the agents retrieve from."""

    file: Path = Path("domains/insurance/knowledge.toml")
    library: Path = Field(
        Path("var/knowledge"), description="Folder of what `flywheel knowledge add` has added, in versions."
    )
    dense: bool = Field(
        default=False,
        description="Find items by meaning, too ([embedding] says by which model); false: by words alone.",
    )
    url: str | None = Field(None, description="A Qdrant server; None: embedded in the process.")


class SqlSection(_Section):
    """What SQL runs on."""

    databases: tuple[Path, ...] = Field(
        (Path("var/insurance.db"), Path("var/insurance_shadow.db")),
        min_length=1,
        description="The first is production; on the others, with other rows, SQL must match as well.",
    )


class EvaluationSection(_Section):
    """What policies are compared on."""

    tasks: Path = Field(
        Path("var/tasks/held_out.jsonl"), description="Tasks that no training, retrieval or prompt has seen."
    )


class Settings(BaseSettings):
    """All settings, with absolute paths. Made by `load`; `root` is the folder of the settings file."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="FLYWHEEL_", env_nested_delimiter="__"
    )

    root: Path = Field(Path(), description="Set by `load`.")
    var: Path = Field(Path("var"), description="Everything that Flywheel writes.")
    gateway: GatewaySection = GatewaySection()
    vllm: VllmSection = VllmSection()
    feedback: FeedbackSection = FeedbackSection()
    kafka: KafkaOptions | None = Field(
        None,
        description="The cluster that events travel through; None: from the outbox straight to the store.",
    )
    telemetry: TelemetryOptions = TelemetryOptions()
    agents: AgentsSection = AgentsSection()
    databases: Databases = Field(
        {"insurance": DatabaseSource(url="sqlite:///var/insurance.db")},
        description="Databases that agents may read, by name.",
    )
    documents: DocumentsOptions = DocumentsOptions()
    mcp: McpServers = Field({}, description="MCP servers whose tools agents may call, by name.")
    embedding: EmbeddingOptions = EmbeddingOptions()
    knowledge: KnowledgeSection = KnowledgeSection()
    bounds: Bounds = Bounds()
    ingest: IngestOptions = IngestOptions()
    limits: LimitsConfig = LimitsConfig()
    redaction: RedactionOptions = RedactionOptions()
    retention: RetentionOptions = RetentionOptions()
    sql: SqlSection = SqlSection()
    evaluation: EvaluationSection = EvaluationSection()
    external: ExternalModels = Field(
        (),
        description="Models of other providers that clients may ask by name; none: nothing leaves the network.",
    )
    trainer: Options = Options()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # as pydantic-settings calls it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # as pydantic-settings calls it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # as pydantic-settings calls it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before the file, which `load` passes as arguments."""
        return env_settings, init_settings

    @property
    def base_url(self) -> str:
        """Where a client on this machine reaches the gateway."""
        host = "127.0.0.1" if self.gateway.host in ("0.0.0.0", "::") else self.gateway.host  # noqa: S104  # not bound here
        return f"http://{host}:{self.gateway.port}"

    @property
    def key_file(self) -> Path:
        """The operator's own API key, made at the first start, mode 0600."""
        return self.var / "key"

    @property
    def local_mark(self) -> Path:
        """Is there when the last `flywheel up` was one with `--kafka`; see `deploy.local`."""
        return self.var / "local-kafka"

    @property
    def export(self) -> Path:
        """What `flywheel export` writes and `flywheel query` reads, unless told otherwise."""
        return self.var / "export"

    @property
    def logs(self) -> Path:
        """What the processes print."""
        return self.var / "log"


def load(path: Path | None = None) -> Settings:
    """Read the settings; `path` None: $FLYWHEEL_CONFIG, else `flywheel.toml` here or in a folder above.

    Raises `SettingsError`.
    """
    file = _find(path)
    try:
        data = tomllib.loads(file.read_text("utf-8"))
        _refuse_unknown_variables()
        settings = Settings(**data)
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error
    except SourceError as error:
        raise SettingsError(f"environment: {error}") from error
    except ValidationError as error:
        raise SettingsError(_in_one_line(error, file)) from error
    root = file.parent
    feedback = settings.feedback.model_copy(
        update={"store_url": _anchored_url(settings.feedback.store_url, root)}
    )
    settings = settings.model_copy(update={"feedback": feedback})
    anchored = {name: _anchored(value, root) for name, value in settings}
    anchored |= _sources(settings, root)
    anchored["kafka"] = settings.kafka and _with_files(settings.kafka, root)
    return settings.model_copy(update={**anchored, "root": root})


def _find(path: Path | None) -> Path:
    if path is None and (named := os.environ.get("FLYWHEEL_CONFIG")):
        path = Path(named)
    if path is not None:
        return path.resolve()
    here = Path.cwd()
    found = next((folder / FILE for folder in (here, *here.parents) if (folder / FILE).is_file()), None)
    if found is None:
        raise SettingsError(
            f"no {FILE} in {here} or above it: go to Flywheel's folder, or set FLYWHEEL_CONFIG"
        )
    return found


def _refuse_unknown_variables() -> None:
    """pydantic-settings passes over a misspelt section in silence."""
    for name in os.environ:
        section, nested, _ = name.removeprefix("FLYWHEEL_").partition("__")
        if name.startswith("FLYWHEEL_") and nested and section.lower() not in Settings.model_fields:
            known = ", ".join(sorted(Settings.model_fields))
            raise SettingsError(
                f"environment: {name}: there is no section {section.lower()}; there are {known}"
            )


def _in_one_line(error: ValidationError, file: Path) -> str:
    first = error.errors()[0]
    section, *rest = (str(part) for part in first["loc"])
    field = f"[{section}] {'.'.join(rest)}" if rest else section
    variable = "FLYWHEEL_" + "__".join((section, *rest[:1])).upper()
    where = f"environment: {variable}" if variable in os.environ else f"{file}: {field}"
    mend = (
        "no such setting; remove it or mend its name" if first["type"] == "extra_forbidden" else first["msg"]
    )
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return (
        f"{where}: {mend}, not {first['input']!r}{more}" if "such" not in mend else f"{where}: {mend}{more}"
    )


def _anchored_url(url: str, root: Path) -> str:
    scheme, separator, path = url.partition(":///")
    return f"{scheme}:///{root / path}" if scheme in ("sqlite", "duckdb") and separator and path else url


def _sources(settings: Settings, root: Path) -> dict[str, Any]:
    """What agents' tools read, wherever the command is run."""
    databases = {
        name: source.model_copy(update={"url": _anchored_url(source.url, root)})
        for name, source in settings.databases.items()
    }
    servers = {
        name: source.model_copy(update={"folder": source.folder and root / source.folder})
        for name, source in settings.mcp.items()
    }
    documents = settings.documents.model_copy(update={"folder": root / settings.documents.folder})
    model = settings.embedding.folder
    embedding = settings.embedding.model_copy(update={"folder": model and root / model})
    return {"databases": databases, "mcp": servers, "documents": documents, "embedding": embedding}


def _with_files(kafka: KafkaOptions, root: Path) -> KafkaOptions:
    files = {name: getattr(kafka, name) for name in ("ca_file", "certificate_file", "key_file")}
    return kafka.model_copy(
        update={name: str(root / file) for name, file in files.items() if file is not None}
    )


def _anchored(value: Any, root: Path) -> Any:
    if isinstance(value, Path):
        return root / value
    if isinstance(value, tuple):
        return tuple(_anchored(item, root) for item in value)
    if isinstance(value, _Section):
        return value.model_copy(update={name: _anchored(item, root) for name, item in value})
    return value
