"""What a client of Kafka must be told, and how kafka-python wants to hear it."""

import os
import ssl
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feedback.bus.base import BusError

Topic = Literal["requests", "ratings", "policies", "erasures", "dead-letter", "otlp"]


class KafkaOptions(BaseModel):
    """One cluster, and our topics on it. Holds no secret, so that it may stand in a file or on a command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: tuple[str, ...] = Field(
        min_length=1, description="Brokers to begin with, each `host:port`; they tell of the others."
    )
    prefix: str = Field(
        "flywheel",
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$",
        description="What the names of all topics begin with: `<prefix>.requests` and so on.",
    )
    partitions: int = Field(
        6,
        ge=1,
        le=1_000,
        description="Of each topic that collectors share: as many can work at once. Policies and erasures have one.",
    )
    replication: int = Field(
        1, ge=1, le=32_767, description="Brokers that keep each record; 3 in production."
    )
    min_insync_replicas: int = Field(
        1,
        ge=1,
        le=32_767,
        description="Brokers that must have a record before it is acknowledged; 2 in production.",
    )
    retention_days: float = Field(
        30.0,
        gt=0,
        le=36_500,
        description="How long a record can be read again, in days. Policies and erasures are kept for ever.",
    )
    group: str = Field(
        "flywheel-collector", min_length=1, max_length=200, description="Consumer group of the collectors."
    )
    otlp_tenant: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Whose is what an OpenTelemetry Collector puts on `<prefix>.otlp`; None: nobody reads that topic.",
    )
    compression: Literal["lz4", "gzip", "none"] = Field("lz4", description="Of what is sent, batch by batch.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="With TLS (SSL) or without it, with a log-in (SASL) or without it."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How to log in; needed with SASL."
    )
    sasl_username: str | None = Field(None, min_length=1, description="As whom; needed with SASL.")
    sasl_password_variable: str | None = Field(
        None, min_length=1, description="Environment variable that holds the password; needed with SASL."
    )
    ca_file: str | None = Field(
        None, description="PEM file of the authorities that sign brokers' certificates; None: the system's."
    )
    certificate_file: str | None = Field(
        None, description="PEM file of our own certificate, where brokers ask for one."
    )
    key_file: str | None = Field(None, description="PEM file of its private key.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_insync_replicas > self.replication:
            raise ValueError(
                f"min_insync_replicas: {self.min_insync_replicas} of {self.replication} replicas cannot be in sync"
            )
        sasl = (self.sasl_mechanism, self.sasl_username, self.sasl_password_variable)
        if self.security_protocol.startswith("SASL"):
            if None in sasl:
                raise ValueError("SASL needs sasl_mechanism, sasl_username and sasl_password_variable")
        elif any(sasl):
            raise ValueError(f"sasl_… has no effect with security_protocol {self.security_protocol}")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("give certificate_file and key_file, or neither")
        if not self.security_protocol.endswith("SSL") and (self.ca_file or self.certificate_file):
            raise ValueError(f"certificates have no effect with security_protocol {self.security_protocol}")
        return self

    def topic(self, topic: Topic) -> str:
        """Its name on the cluster."""
        return f"{self.prefix}.{topic}"


def connection(options: KafkaOptions) -> dict[str, Any]:
    """What every client of kafka-python takes as keywords. Raises `BusError` without password or files."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(options.bootstrap_servers),
        "client_id": options.prefix,
        "security_protocol": options.security_protocol,
        "reconnect_backoff_max_ms": 2_000,
    }
    if options.security_protocol.endswith("SSL"):
        arguments["ssl_context"] = _tls(options)
    if options.security_protocol.startswith("SASL"):
        variable = str(options.sasl_password_variable)
        password = os.environ.get(variable)
        if not password:
            raise BusError(f"the environment variable {variable}, Kafka's password, is not set")
        arguments |= {
            "sasl_mechanism": options.sasl_mechanism,
            "sasl_plain_username": options.sasl_username,
            "sasl_plain_password": password,
        }
    return arguments


def _tls(options: KafkaOptions) -> ssl.SSLContext:
    # Not by kafka-python, which would take a file that is not there for a broker that is not.
    name, file = "ca_file", options.ca_file
    try:
        context = ssl.create_default_context(cafile=file)
        if options.certificate_file is not None:
            name, file = "certificate_file or key_file", f"{options.certificate_file}, {options.key_file}"
            context.load_cert_chain(options.certificate_file, options.key_file)
    except OSError as error:  # `ssl.SSLError` is one
        raise BusError(f"{name} {file} cannot be used for TLS: {error}") from error
    return context
