"""The shipped collector configuration, run by the real OpenTelemetry Collector, in both directions.

Gateway → OTLP → collector → file; and an application → OTLP → collector → gateway, or → Kafka → store.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util.types import AnyValue

from feedback.bus.kafka import topics
from feedback.bus.kafka.options import KafkaOptions
from feedback.store import Keys, Store
from gateway.config import TelemetryOptions
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, TEXT, World, until
from tests.gateway.fake_vllm import BASE, answer_of
from tests.gateway.otlp import CLIENT, INTERNAL, Event, Span, events, spans

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "otel-collector.yaml"
CHAT = "/v1/chat/completions"
TRACE, CALLER = "ab" * 16, "cd" * 8


def _binary() -> str | None:
    beside = ROOT.parent / "shared" / "bin" / "otelcol"
    return os.environ.get("OTELCOL") or shutil.which("otelcol") or (str(beside) if beside.is_file() else None)


OTELCOL = _binary()
pytestmark = pytest.mark.skipif(
    OTELCOL is None,
    reason="no OpenTelemetry Collector: put `otelcol` (the contrib distribution) on PATH, or its path into OTELCOL",
)


@dataclass(frozen=True)
class Collector:
    url: str
    file: Path

    def documents(self) -> list[dict[str, Any]]:
        """Everything that it has written so far, whole lines only."""
        lines = self.file.read_text().split("\n")[:-1] if self.file.exists() else []
        return [json.loads(line) for line in lines]

    def spans(self) -> list[Span]:
        return [span for document in self.documents() for span in spans(document)]

    def events(self) -> list[Event]:
        return [event for document in self.documents() for event in events(document)]


@asynccontextmanager
async def _running(folder: Path, **variables: str) -> AsyncIterator[Collector]:
    assert OTELCOL is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    collector = Collector(f"http://{address}", folder / "telemetry.jsonl")
    log = folder / "otelcol.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            OTELCOL,
            "--config",
            str(CONFIG),
            stderr=output,
            env={
                "OTLP_HTTP_ADDRESS": address,
                "OTEL_FILE": str(collector.file),
                "OTEL_BATCH_TIMEOUT": "100ms",
                **variables,
            },
        )
    try:

        async def listens() -> bool:
            assert process.returncode is None, log.read_text()
            try:
                _, writer = await asyncio.open_connection(*address.split(":"))
            except OSError:
                return False
            writer.close()
            await writer.wait_closed()
            return True

        await until(listens, 30)
        yield collector
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ask_and_rate(world: World, collector: Collector, *, content: bool) -> str:
    options = TelemetryOptions(otlp_endpoint=collector.url, content=content)
    async with world.running(telemetry=options):
        body = {"model": AGENT, "messages": QUESTION, "stream": True, "temperature": 0.5}
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-episode-id": "case-7"}
        answered = await world.http().post(CHAT, json=body, headers=headers)
        request_id = answered.headers["x-request-id"]
        rating = {"request_id": request_id, "value": False, "comment": "as in the report"}
        assert (await world.http("bob").post("/v1/feedback", json=rating)).status_code == 200
    await until(lambda: len(collector.spans()) == 3 and collector.events(), 20)
    return request_id


async def test_what_a_request_and_its_rating_leave_behind_a_real_collector(world: World, tmp_path: Path):
    async with _running(tmp_path) as collector:
        request_id = await _ask_and_rate(world, collector, content=False)
    found = {span.attributes["gen_ai.operation.name"]: span for span in collector.spans()}
    whole, retrieval, chat = found["invoke_agent"], found["retrieval"], found["chat"]
    assert (whole.name, whole.kind) == (f"invoke_agent {AGENT}", INTERNAL)
    assert (chat.name, chat.kind) == (f"chat {BASE}", CLIENT)
    assert retrieval.name == f"retrieval {retrieval.attributes['gen_ai.data_source.id']}"
    assert {span.trace_id for span in found.values()} == {TRACE}
    assert (whole.parent_id, retrieval.parent_id, chat.parent_id) == (CALLER, whole.span_id, whole.span_id)
    assert whole.contains(retrieval) and whole.contains(chat)
    assert whole.resource["service.name"] == "flywheel-gateway"
    for span in (whole, chat):
        assert (
            span.attributes.items()
            >= {
                "gen_ai.provider.name": "vllm",
                "gen_ai.conversation.id": "case-7",
                "gen_ai.request.temperature": 0.5,
                "gen_ai.response.model": BASE_POLICY,
                "gen_ai.usage.input_tokens": 2,
                "gen_ai.usage.output_tokens": len(answer_of(BASE)),
            }.items()
        )
    assert whole.attributes["gen_ai.response.id"] == request_id
    assert chat.attributes["gen_ai.response.finish_reasons"] == ["stop"]

    (event,) = collector.events()
    assert (event.trace_id, event.span_id) == (whole.trace_id, whole.span_id)
    assert event.name == "gen_ai.evaluation.result"
    assert event.attributes == {
        "gen_ai.evaluation.name": "correct",
        "gen_ai.evaluation.score.label": "false",
        "gen_ai.evaluation.score.value": 0,
        "gen_ai.response.id": request_id,
    }
    written = collector.file.read_text()
    for words in (TEXT, "SELECT", "claims(claim_id", "as in the report"):
        assert words not in written


async def test_content_reaches_a_collector_where_it_was_opted_in(world: World, tmp_path: Path):
    async with _running(tmp_path) as collector:
        await _ask_and_rate(world, collector, content=True)
    written = collector.file.read_text()
    for words in (TEXT, "SELECT", "claims(claim_id", "as in the report"):
        assert words in written


@pytest.mark.parametrize("exporters", ["[file, debug]", "[otlp_http/flywheel]", "[kafka/flywheel]"])
async def test_the_shipped_configuration_is_valid_as_it_stands(exporters: str):
    assert OTELCOL is not None
    process = await asyncio.create_subprocess_exec(
        *(OTELCOL, "validate", "--config", str(CONFIG)), cwd=ROOT, env={"OTEL_EXPORTERS": exporters}
    )
    assert await process.wait() == 0


def _tell(url: str) -> None:
    """An application asks its agent, judges the answer, and exports both as the SDK does."""
    resource = Resource({"service.name": "claims-app"})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
    loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs")))
    tracer = tracers.get_tracer("app")
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}
    asked = [{"role": "user", "parts": [{"type": "text", "content": TEXT}]}]
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-large",
        "gen_ai.input.messages": json.dumps(asked),
    }
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "query"}
    with tracer.start_as_current_span("invoke_agent helper", attributes=agent):
        for name, attributes in (("chat gpt-large", chat), ("execute_tool query", tool)):
            with tracer.start_as_current_span(name, attributes=attributes):
                pass
        score: dict[str, AnyValue] = {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.value": 0.5}
        loggers.get_logger("app").emit(event_name="gen_ai.evaluation.result", attributes=score)
    tracers.shutdown()
    loggers.shutdown()


async def _arrived(store: Store, tenant: str) -> None:
    """What `_tell` told is in the store, as one request and its rating."""
    await until(lambda: store.counts()["requests"] and store.counts()["ratings"], 60)
    (request,), (rating,) = store.requests(tenant=tenant), store.ratings(tenant=tenant)
    assert (request.origin, request.agent, request.input[0].text) == ("otlp", "helper", TEXT)
    assert [call.kind for call in request.calls] == ["external", "tool"]
    assert (rating.request_id, rating.name, rating.value) == (request.request_id, "tone", 0.5)


async def test_what_an_application_tells_comes_through_a_collector_to_the_gateway(
    live: World, tmp_path: Path
):
    async with live.store() as store:
        secret = Keys(store).create("app", ["ingest", "rate"], tenant="acme")
        settings = {
            "OTEL_EXPORTERS": "[otlp_http/flywheel]",
            "FLYWHEEL_URL": live.url,
            "FLYWHEEL_KEY": secret,
        }
        async with _running(tmp_path, **settings) as collector:
            await asyncio.to_thread(_tell, collector.url)
            await _arrived(store, "acme")


async def test_what_an_application_tells_comes_through_a_collector_and_kafka_to_the_store(
    kafka_broker: str, tmp_path: Path
):
    prefix = f"t{uuid.uuid4().hex}"
    servers = tuple(kafka_broker.split(","))
    options = KafkaOptions(
        bootstrap_servers=servers, prefix=prefix, group=prefix, partitions=2, otlp_tenant="acme"
    )
    await asyncio.to_thread(topics.create, options)
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = Store.open(url)
    settings = {
        "OTEL_EXPORTERS": "[kafka/flywheel]",
        "KAFKA_BROKERS": servers[0],
        "FLYWHEEL_OTLP_TOPIC": options.topic("otlp"),
    }
    command = (sys.executable, "-m", "feedback.bus.kafka.collecting", options.model_dump_json(), url)
    collecting = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        async with _running(tmp_path, **settings) as collector:
            await asyncio.to_thread(_tell, collector.url)
            await _arrived(store, "acme")
    finally:
        collecting.terminate()
        await collecting.wait()
        store.close()
