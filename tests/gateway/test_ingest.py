"""OTLP over HTTP: what is taken is on the disk, what is refused says why, and nothing taken poses as ours."""

import asyncio
import gzip
import json
import shutil
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import Parse
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as g

from feedback import otlp
from feedback.events import Rating, RequestFinished
from feedback.outbox import OutboxError
from feedback.store import Keys
from gateway.config import IngestOptions, TelemetryOptions
from tests.feedback.otlp.conftest import App
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World, until
from tests.gateway.otlp import document

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_FORMS = [PROTOBUF, JSON]


@pytest.fixture
async def sender(live: World) -> httpx.AsyncClient:
    """A client of a key that may send traces and rate."""
    return await _client(live, ["ingest", "rate"])


async def _client(world: World, scopes: list[str], tenant: str = "default") -> httpx.AsyncClient:
    async with world.store() as store:
        secret = Keys(store).create("app", scopes, tenant=tenant)
    client = world.http(None)
    client.headers["authorization"] = f"Bearer {secret}"
    return client


def _agent(**attributes) -> App:
    app = App()
    with app.span("invoke_agent", **{g.GEN_AI_AGENT_NAME: "helper"}), app.chat(**attributes):
        pass
    return app


def _encoded(export, form: str) -> bytes:
    return export.SerializeToString() if form == PROTOBUF else json.dumps(document(export)).encode()


def _decoded(response: httpx.Response, kind):
    if response.headers["content-type"] == PROTOBUF:
        return kind.FromString(response.content)
    return Parse(response.content, kind())


async def _send(
    client: httpx.AsyncClient, export: Any, form: str = PROTOBUF, signal: str = "traces"
) -> httpx.Response:
    body = _encoded(export, form)
    return await client.post(f"/v1/{signal}", content=body, headers={"content-type": form})


async def _landed(world: World, count: int, tenant: str = "default") -> list[RequestFinished]:
    async with world.store() as store:
        await until(lambda: len(list(store.requests(tenant=tenant))) >= count)
        return list(store.requests(tenant=tenant))


@pytest.mark.parametrize("form", _FORMS)
async def test_an_export_is_answered_in_its_encoding_and_recorded(live: World, sender, form: str) -> None:
    response = await _send(sender, _agent().traces(), form)
    assert (response.status_code, response.headers["content-type"]) == (200, form)
    assert _decoded(response, ExportTraceServiceResponse) == ExportTraceServiceResponse()
    (event,) = await _landed(live, 1)
    assert (event.origin, event.agent, event.caller, event.output) == ("otlp", "helper", "app", "42")


async def test_gzip_is_unpacked_and_what_was_sent_twice_has_one_effect(live: World, sender) -> None:
    body = gzip.compress(_agent().traces().SerializeToString())
    headers = {"content-type": PROTOBUF, "content-encoding": "gzip"}
    for _ in range(2):
        assert (await sender.post("/v1/traces", content=body, headers=headers)).status_code == 200
    assert (await _send(sender, _agent().traces())).status_code == 200
    assert len(await _landed(live, 2)) == 2


@pytest.mark.parametrize("form", _FORMS)
async def test_what_cannot_be_taken_is_counted_and_the_rest_is_taken(live: World, sender, form: str) -> None:
    export = _agent().traces()
    export.resource_spans[0].scope_spans[0].spans.add(name="chat")
    answer = _decoded(await _send(sender, export, form), ExportTraceServiceResponse)
    assert answer.partial_success.rejected_spans == 1
    assert "trace id" in answer.partial_success.error_message
    assert await _landed(live, 1)
    app = App()
    app.log({g.GEN_AI_EVALUATION_NAME: "tone"})
    answer = _decoded(await _send(sender, app.logs(), form, "logs"), ExportLogsServiceResponse)
    assert answer.partial_success.rejected_log_records == 1


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff", {}, 400),
        (b"\xff", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"", mtime=0)[:-4], {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"", mtime=0) * 2, {"content-encoding": "gzip"}, 400),
        (b"", {"content-encoding": "zstd"}, 415),
        (b"", {"authorization": "Bearer fw-wrong"}, 401),
    ],
)
async def test_a_refusal_is_a_status_in_the_encoding_of_the_request(
    sender, form: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = await sender.post("/v1/traces", content=body, headers={"content-type": form, **headers})
    assert (response.status_code, response.headers["content-type"]) == (status, form)
    assert _decoded(response, Status).message


async def test_other_content_types_are_refused_in_json(sender) -> None:
    response = await sender.post("/v1/traces", content=b"", headers={"content-type": "text/plain"})
    assert response.status_code == 415 and PROTOBUF in _decoded(response, Status).message


async def test_an_export_is_bounded_before_and_after_it_is_unpacked(world: World) -> None:
    options = IngestOptions(max_body_bytes=4_096, max_unpacked_bytes=8_192, max_records=3)
    async with world.running(ingest=options):
        client = await _client(world, ["ingest"])
        bomb = gzip.compress(b"\0" * 2**20)
        assert len(bomb) < 4_096
        spans = ExportTraceServiceRequest()
        for _ in range(4):
            spans.resource_spans.add().scope_spans.add().spans.add()
        for body, headers in (
            (b"\0" * 4_097, {}),
            (bomb, {"content-encoding": "gzip"}),
            (spans.SerializeToString(), {}),
        ):
            response = await client.post(
                "/v1/traces", content=body, headers={"content-type": PROTOBUF, **headers}
            )
            assert response.status_code == 413
            assert _decoded(response, Status).message


async def test_too_many_at_once_are_told_to_come_again(world: World) -> None:
    async with world.running(ingest=IngestOptions(max_concurrent=1)):
        client = await _client(world, ["ingest"])
        assert world.gateway is not None
        ingest = world.gateway.ingest
        async with ingest._reading:  # the first waits here
            first = asyncio.create_task(_send(client, _agent().traces()))
            await until(lambda: ingest._running == 1)
            refused = await _send(client, _agent().traces())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (await first).status_code == 200


async def test_what_is_not_on_the_disk_is_not_acknowledged(live: World, sender, monkeypatch) -> None:
    async def full(_):
        raise OutboxError("disk full")

    assert live.gateway is not None
    monkeypatch.setattr(live.gateway.delivery, "append", full)
    response = await _send(sender, _agent().traces())
    assert response.status_code == 503 and response.headers["retry-after"]
    assert "disk full" in _decoded(response, Status).message


async def test_evaluations_need_the_scope_rate_also_within_traces(live: World) -> None:
    client = await _client(live, ["ingest"])
    app = App()
    with app.span("invoke_agent") as span:
        span.add_event(
            "gen_ai.evaluation.result", {g.GEN_AI_EVALUATION_NAME: "tone", g.GEN_AI_EVALUATION_SCORE_VALUE: 1}
        )
    answer = _decoded(await _send(client, app.traces()), ExportTraceServiceResponse)
    assert answer.partial_success.rejected_spans == 0
    assert "'rate'" in answer.partial_success.error_message
    assert (await _send(client, app.logs(), signal="logs")).status_code == 403
    await _landed(live, 1)
    async with live.store() as store:
        assert list(store.ratings(tenant="default")) == []


async def test_evaluations_become_ratings_of_requests_of_others_and_of_ours(live: World, sender) -> None:
    ours = (await live.openai().chat.completions.create(model=AGENT, messages=QUESTION)).id
    theirs = _agent(**{g.GEN_AI_RESPONSE_ID: "chatcmpl-AbC"})
    assert (await _send(sender, theirs.traces())).status_code == 200
    app = App()
    for rated in (ours, "chatcmpl-AbC"):
        app.log(
            {
                g.GEN_AI_EVALUATION_NAME: "tone",
                g.GEN_AI_EVALUATION_SCORE_VALUE: 0.5,
                g.GEN_AI_RESPONSE_ID: rated,
            }
        )
    assert (await _send(sender, app.logs(), signal="logs")).status_code == 200
    async with live.store() as store:

        def ratings() -> dict[str | None, Rating]:
            return {rating.request_id: rating for rating in store.ratings(tenant="default")}

        await until(lambda: len(ratings()) == 2)
        assert {(name, rating.rater, rating.value) for name, rating in ratings().items()} == {
            (ours, "app", 0.5),
            ("chatcmpl-AbC", "app", 0.5),
        }


async def test_people_rate_what_others_told_of(live: World, sender) -> None:
    assert (await _send(sender, _agent(**{g.GEN_AI_RESPONSE_ID: "r-1"}).traces())).status_code == 200
    (event,) = await _landed(live, 1)
    ann = live.http("ann")
    assert (
        await ann.post("/v1/feedback", json={"request_id": event.request_id, "value": True})
    ).status_code == 200
    assert live.gateway is not None
    exposition = await live.gateway.telemetry.exposition(live.gateway)
    assert exposition is not None and b"elsewhere" in exposition and b"helper" not in exposition


async def test_no_export_stands_before_a_request_of_this_gateway(live: World, sender) -> None:
    trace, caller = "ab" * 16, "cd" * 8
    headers = {"traceparent": f"00-{trace}-{caller}-01", "x-episode-id": "case-7"}
    answered = await live.http().post(
        "/v1/chat/completions", json={"model": AGENT, "messages": QUESTION}, headers=headers
    )
    ours = await live.recorded(answered.json()["id"])
    export = _agent(**{g.GEN_AI_RESPONSE_ID: ours.request_id, g.GEN_AI_CONVERSATION_ID: "case-7"}).traces()
    spans = [span for scope in export.resource_spans[0].scope_spans for span in scope.spans]
    for span in spans:
        span.trace_id = bytes.fromhex(trace)
    spans[0].parent_span_id = b""  # a request of its own, with the span of ours
    spans[0].span_id = bytes.fromhex(ours.span_id)
    assert (await _send(sender, export)).status_code == 200
    await _landed(live, 3)
    async with live.store() as store:
        assert store.request(ours.request_id, "default") == ours
        for asked in ({"trace_id": trace}, {"span_id": ours.span_id}, {"episode_id": "case-7"}):
            assert store.newest("default", **asked) == ours


async def test_what_a_gateway_tells_of_itself_another_one_takes(world: World, ground, tmp_path) -> None:
    async with world.running():
        client = await _client(world, ["ingest", "rate"])
        secret = client.headers["authorization"]
        here = World(tmp_path / "telling", world.keys, world.vllm, _beside(world, tmp_path / "telling"))
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={secret.replace(' ', '%20')}")
            telemetry = TelemetryOptions(otlp_endpoint=world.url, content=True)
            async with here.running(telemetry=telemetry):
                answered = await here.openai().chat.completions.create(model=AGENT, messages=QUESTION)
                rating = {"request_id": answered.id, "value": True}
                assert (await here.http().post("/v1/feedback", json=rating)).status_code == 200
                original = await here.recorded(answered.id)
        (event,) = await _landed(world, 1)
        assert event.request_id == f"otlp-{answered.id}" and event.agent == AGENT
        assert (event.trace_id, event.span_id) == (original.trace_id, original.span_id)
        assert (event.input, event.output) == (original.input, original.output)
        assert [call.kind for call in event.calls] == ["tool", "external"]
        async with world.store() as store:
            await until(lambda: list(store.ratings(tenant="default")))
            (rated,) = store.ratings(tenant="default")
        assert (rated.request_id, rated.name, rated.value) == (event.request_id, "correct", 1.0)
        assert TEXT in event.model_dump_json()


def _beside(world: World, folder):
    """The configuration of a second gateway, with files of its own."""
    folder.mkdir()
    shutil.copy(world.folder / "store.db", folder / "store.db")
    changes = {"store_url": f"sqlite:///{folder / 'store.db'}", "outbox_path": folder / "outbox.db"}
    return world.config.model_copy(update=changes)


async def test_traces_of_one_tenant_are_not_seen_by_another(live: World) -> None:
    theirs = await _client(live, ["ingest"], tenant="other")
    assert (await _send(theirs, _agent(**{g.GEN_AI_RESPONSE_ID: "r-1"}).traces())).status_code == 200
    await _landed(live, 1, "other")
    async with live.store() as store:
        assert list(store.requests(tenant="default")) == []
    refused = await live.http("ann").post("/v1/feedback", json={"request_id": "r-1", "value": True})
    assert refused.status_code == 404


def test_the_largest_export_that_is_taken_is_more_than_a_collector_sends_by_default() -> None:
    assert IngestOptions().max_records >= 2_048  # send_batch_max_size in deploy/otel-collector.yaml
    assert otlp.size(_agent().traces()) == 2
