"""From the settings of one machine to the gateway's own configuration."""

from deploy import models
from deploy.process import GRACE_SECONDS
from deploy.settings import Settings
from gateway.config import GatewayConfig


def gateway_config(settings: Settings) -> GatewayConfig:
    """What `python -m gateway` is told. Raises `deploy.models.ModelError` where there is no model."""
    return GatewayConfig(
        host=settings.gateway.host,
        port=settings.gateway.port,
        workers=settings.gateway.workers,
        vllm_url=settings.vllm.base_url,
        more_vllm_urls=settings.vllm.more_urls,
        base_model=settings.vllm.served_name,
        base_digest=models.digest(settings.vllm.model),
        agents=settings.agents.folders,
        turns=settings.agents.turns,
        databases=settings.databases,
        documents=settings.documents,
        mcp=settings.mcp,
        mcp_server=settings.gateway.mcp,
        embedding=settings.embedding,
        knowledge=settings.knowledge.file,
        qdrant_url=settings.knowledge.url,
        store_url=settings.feedback.store_url,
        operator_tenant=settings.gateway.operator_tenant,
        outbox_path=settings.feedback.outbox,
        delivery_process=True,
        kafka=settings.kafka,
        telemetry=settings.telemetry,
        max_body_bytes=settings.gateway.max_body_bytes,
        bounds=settings.bounds,
        ingest=settings.ingest,
        max_background=settings.gateway.max_background,
        idempotency_hours=settings.gateway.idempotency_hours,
        idempotency_max_bytes=settings.gateway.idempotency_max_bytes,
        limits=settings.limits,
        redaction=settings.redaction,
        retention=settings.retention,
        external=settings.external,
        drain_seconds=GRACE_SECONDS - 2,  # else the guard would end it in the middle of an answer
    )
