"""What Prometheus is told: everything that happened, by known names, to those who may know."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import TelemetryOptions
from gateway.telemetry.tally import Buckets, Tally
from gateway.trace import Trace
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, TEXT, World, until
from tests.gateway.fake_vllm import BASE, answer_of
from tests.gateway.test_telemetry import plain

CHAT = "/v1/chat/completions"
GOOD = {"model": AGENT, "messages": QUESTION}
FORWARDED = {"x-forwarded-for": "203.0.113.7"}


class Samples:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.all = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def __call__(self, metric: str, /, **labels: str) -> float:
        """The sum over all samples of this metric that have these labels."""
        return sum(s.value for s in self.all if s.name == metric and labels.items() <= s.labels.items())

    def labels(self, metric: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.all if sample.name == metric}


async def scrape(world: World) -> Samples:
    response = await world.http(None).get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Samples(response.text)


async def test_a_request_is_counted_with_its_times_and_tokens(live: World) -> None:
    for _ in range(3):
        assert (await live.http().post(CHAT, json=GOOD)).status_code == 200
    seen = await scrape(live)
    assert seen("flywheel_requests_total", model=AGENT, policy=BASE_POLICY, status="completed") == 3
    model = {"gen_ai_request_model": AGENT, "gen_ai_operation_name": "invoke_agent"}
    assert seen("gen_ai_server_request_duration_seconds_count", **model, error_type="") == 3
    whole = seen("gen_ai_server_request_duration_seconds_sum", **model)
    first = seen("gen_ai_server_time_to_first_token_seconds_sum", **model)
    overhead = seen("flywheel_gateway_overhead_seconds_sum", **model)
    assert seen("gen_ai_server_time_to_first_token_seconds_count", **model) == 3
    assert 0 < first < whole and 0 < overhead < whole
    assert seen("gen_ai_client_token_usage_sum", **model, gen_ai_token_type="input") == 3 * 2
    written = seen("gen_ai_client_token_usage_sum", **model, gen_ai_token_type="output")
    assert written == 3 * len(answer_of(BASE))
    calls = "gen_ai_client_operation_duration_seconds"
    for operation in ("chat", "retrieval"):
        assert seen(f"{calls}_count", gen_ai_operation_name=operation, gen_ai_request_model=AGENT) == 3
    assert seen(f"{calls}_sum") + overhead == pytest.approx(whole, abs=1e-4)  # by two clocks
    assert seen("flywheel_requests_in_flight", model=AGENT) == 0


async def test_requests_in_progress_are_seen(live: World) -> None:
    live.vllm.seconds_per_chunk = 0.1
    asking = asyncio.create_task(live.http().post(CHAT, json=GOOD))
    await until(lambda: live.vllm.running)
    assert (await scrape(live))("flywheel_requests_in_flight", model=AGENT) == 1
    await asking
    assert (await scrape(live))("flywheel_requests_in_flight", model=AGENT) == 0


async def test_what_fails_is_counted_by_its_error_code(live: World) -> None:
    live.vllm.break_after = 1
    await live.http().post(CHAT, json=GOOD)
    seen = await scrape(live)
    assert seen("flywheel_requests_total", status="failed", error_type="upstream_unavailable") == 1
    assert seen("flywheel_requests_total") == 1


async def test_http_requests_are_counted_by_route_and_status_refused_ones_too(live: World) -> None:
    client = live.http()
    await client.post(CHAT, json=GOOD)
    await client.post(CHAT, json={**GOOD, "model": "made-up-by-a-client"})
    await live.http(None).post(CHAT, json=GOOD)
    await client.get(f"/v1/models/{AGENT}")
    await client.get("/made-up-by-a-client")
    await client.request("BREW", "/healthz")
    seen = await scrape(live)
    count = "http_server_request_duration_seconds_count"
    for status in ("200", "404", "401"):
        assert (
            seen(
                count,
                http_route=CHAT,
                http_request_method="POST",
                http_response_status_code=status,
            )
            == 1
        )
    assert seen(count, http_route="/v1/models/{name}", http_response_status_code="200") == 1
    assert seen(count, http_route="other", http_response_status_code="404") == 1
    assert seen.labels(count, "http_request_method") <= {"GET", "POST", "_OTHER"}
    assert "made-up-by-a-client" not in seen.text


async def test_ratings_are_counted_by_value(live: World) -> None:
    asked = (await live.http().post(CHAT, json=GOOD)).json()["id"]
    for who, value in (("ann", True), ("bob", False), ("ann", False)):
        body = {"request_id": asked, "value": value, "comment": "a secret"}
        assert (await live.http(who).post("/v1/feedback", json=body)).status_code == 200
    refused = {"request_id": asked, "name": "made-up-by-a-client", "value": True}
    assert (await live.http().post("/v1/feedback", json=refused)).status_code == 400
    seen = await scrape(live)
    assert seen("flywheel_ratings_total", agent=AGENT, name="correct", value="true") == 1
    assert seen("flywheel_ratings_total", agent=AGENT, name="correct", value="false") == 2
    assert "made-up-by-a-client" not in seen.text


async def test_the_active_policy_and_its_swaps_are_seen(live: World) -> None:
    policy = await live.evaluated("d1")
    assert (await live.promote(policy)).status_code == 200
    seen = await scrape(live)
    assert seen("flywheel_active_policy_info", agent=AGENT, policy=policy) == 1
    assert seen("flywheel_active_policy_info") == 1
    assert seen("flywheel_policy_loaded", agent=AGENT) == 1
    assert (await live.rollback()).status_code == 200
    assert (await live.promote(policy)).status_code == 200
    assert (await live.promote(policy)).status_code == 409
    seen = await scrape(live)
    swaps = "flywheel_swaps_total"
    assert seen(swaps, agent=AGENT, kind="promotion", outcome="done") == 2
    assert seen(swaps, agent=AGENT, kind="promotion", outcome="failed") == 1
    assert seen(swaps, agent=AGENT, kind="rollback", outcome="done") == 1


async def test_what_waits_for_a_store_that_takes_nothing_is_seen(live: World) -> None:
    async def moved() -> bool:
        return (await scrape(live))("flywheel_outbox_events") == 0

    await until(moved)
    store = sqlite3.connect(live.folder / "store.db", isolation_level=None)
    store.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        await live.http().post(CHAT, json=GOOD)
    seen = await scrape(live)
    assert seen("flywheel_outbox_events") == 2
    assert seen("flywheel_outbox_oldest_age_seconds") > 0
    assert seen("flywheel_outbox_bytes") >= sum(path.stat().st_size for path in live.folder.glob("outbox.db"))
    assert seen("flywheel_store_up") == 1  # it can be read
    store.execute("ROLLBACK")
    store.close()
    await until(moved)


async def test_failures_of_the_relay_and_dead_letters_are_counted(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live.gateway is not None
    with sqlite3.connect(live.config.outbox_path) as disk:
        disk.execute("INSERT INTO outbox (time, body) VALUES (1, ?)", (b"no event",))
    disk.close()

    async def buried() -> bool:
        return (await scrape(live))("flywheel_dead_letters") == 1

    await until(buried)
    assert (await scrape(live))("flywheel_relay_failures_total") == 0
    live.gateway.store._engine.dispose()
    with sqlite3.connect(live.folder / "store.db") as disk:
        disk.execute("ALTER TABLE requests RENAME TO away")
        disk.execute("ALTER TABLE dead_letters RENAME TO away_too")
    disk.close()
    await live.http().post(CHAT, json=GOOD)

    async def failed() -> bool:
        return (await scrape(live))("flywheel_relay_failures_total") > 0

    await until(failed)
    seen = await scrape(live)
    assert seen("flywheel_store_up") == 0
    assert "flywheel_dead_letters " not in seen.text


async def test_metrics_hold_neither_content_nor_secrets(live: World) -> None:
    asked = (await live.http().post(CHAT, json={**GOOD, "user": "u-7", "metadata": {"a": "b-8"}})).json()[
        "id"
    ]
    await live.http().post("/v1/feedback", json={"request_id": asked, "value": True, "comment": "c-9"})
    text = (await scrape(live)).text
    for secret in (TEXT, "SELECT", "u-7", "b-8", "c-9", asked, "ann", *live.keys.values()):
        assert secret not in text


async def test_who_is_not_on_this_machine_needs_an_operators_key(live: World) -> None:
    assert (await live.http(None).get("/metrics", headers=FORWARDED)).status_code == 401
    assert (await live.http("ann").get("/metrics", headers=FORWARDED)).status_code == 403
    assert (await live.http("ops").get("/metrics", headers=FORWARDED)).status_code == 200


@pytest.mark.parametrize(("metrics", "status"), [("open", 200), ("off", 404)])
async def test_metrics_can_be_opened_and_switched_off(world: World, metrics, status) -> None:
    async with world.running(telemetry=TelemetryOptions(metrics=metrics)):
        assert (await world.http().post(CHAT, json=GOOD)).status_code == 200
        asked = (await world.http().post(CHAT, json=GOOD)).json()["id"]
        rated = await world.http().post("/v1/feedback", json={"request_id": asked, "value": True})
        assert rated.status_code == 200
        assert (await world.http(None).get("/metrics", headers=FORWARDED)).status_code == status


async def test_a_plain_model_is_counted_too(live: World) -> None:
    assert live.gateway is not None
    telemetry, trace = live.gateway.telemetry, Trace("ab" * 16, "cd" * 8)
    telemetry.model_finished(trace, plain(), {})
    failed = plain()._replace(status="failed", error="timeout", input_tokens=0, output_tokens=0)
    telemetry.model_finished(trace, failed, {})
    seen = await scrape(live)
    assert seen("flywheel_requests_total", model="m", policy="m@1", status="completed") == 1
    assert seen("flywheel_requests_total", model="m", status="failed", error_type="timeout") == 1
    model = {"gen_ai_request_model": "m", "gen_ai_operation_name": "chat"}
    assert seen("gen_ai_client_token_usage_sum", **model, gen_ai_token_type="output") == 4
    assert seen("gen_ai_client_token_usage_count", **model, gen_ai_token_type="output") == 1
    assert seen("flywheel_gateway_overhead_seconds_sum", **model) == pytest.approx(0.2)
    assert seen("gen_ai_server_request_duration_seconds_sum", **model) == pytest.approx(1.0)
    assert seen("gen_ai_client_operation_duration_seconds_sum", **model) == pytest.approx(0.8)


def test_what_is_counted_in_plain_numbers_comes_out_as_if_prometheus_had_counted() -> None:
    registry = CollectorRegistry()
    ours = Buckets("ours", "", buckets=(1, 2), registry=registry)
    theirs = Histogram("theirs", "", buckets=(1, 2), registry=registry)
    tallies = Tally(ours), Tally(ours)  # as where several labels of one series are counted apart
    for number, amount in enumerate((0, 1, 1.5, 2, 2.5, 1e9)):
        tallies[number % 2].observe(amount)
        theirs.observe(amount)
        for tally in tallies:
            tally.tell()
            tally.tell()
    lines = generate_latest(registry).decode().splitlines()
    told = {
        name: [line.removeprefix(name) for line in lines if line.startswith(name) and "_created" not in line]
        for name in ("ours", "theirs")
    }
    assert told["ours"] == told["theirs"] and len(told["ours"]) == 5


_WORKER = """
import sys
from gateway.config import TelemetryOptions
from gateway.telemetry import ModelOutcome, Telemetry
from gateway.trace import Trace
telemetry = Telemetry(TelemetryOptions())
for _ in range(10):
    telemetry.enter("m")
    outcome = ModelOutcome("r", "e", "chat", "m", "m@1", "completed", started_ns=1, seconds=0.5)
    telemetry.model_finished(Trace("ab" * 16, "cd" * 8), outcome, {})
    telemetry.leave("m")
telemetry.enter("m")
sys.stdout.write(telemetry._metrics.exposition([], {}).decode())
"""


def test_several_workers_count_together(tmp_path: Path, root: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = (sys.executable, "-c", _WORKER)
    seen = []
    for _ in range(2):
        done = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
        seen.append(Samples(done.stdout))
    assert [s("flywheel_requests_total", model="m", policy="m@1", status="completed") for s in seen] == [
        10,
        20,
    ]
    assert [s("gen_ai_server_request_duration_seconds_count") for s in seen] == [10, 20]
    assert seen[1]("gen_ai_server_request_duration_seconds_sum") == 10
    assert seen[1]("flywheel_requests_in_flight") == 2
