"""The supervisor: everything up in order, together, once; and everything down again, whatever happened."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from deploy import supervisor
from deploy.errors import FlywheelError
from deploy.keys import operator_key
from deploy.process import Program, StartError, holder
from deploy.settings import Settings
from deploy.supervisor import collector_program, current, gateway_program, running, vllm_program
from feedback.bus.kafka.options import KafkaOptions
from feedback.quota import Quota
from feedback.store import Keys, Store
from gateway.config import Bounds, GatewayConfig
from gateway.limits.config import LimitsConfig, Price
from gateway.scopes import SCOPES
from tests.deploy.conftest import fake_program, free_port, of_folder

Pretend = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretend:
    """Put fake servers where vLLM and the gateway would be; `vllm` and `gateway` may be commands of their own."""

    def use(**commands: tuple[str, ...]) -> None:
        for name in ("vllm", "gateway"):

            def program(settings: Settings, name: str = name) -> Program:
                port = getattr(settings, name).port
                fake = fake_program(name, port, tmp_path)
                return replace(fake, command=commands.get(name, fake.command))

            monkeypatch.setattr(supervisor, f"{name}_program", program)

    use()
    return use


def quiet() -> Console:
    return Console(quiet=True)


async def test_both_answer_and_then_both_are_gone(settings: Settings, pretend: Pretend, tmp_path: Path):
    async with running(settings, quiet()) as system:
        assert system.base_url == f"http://127.0.0.1:{settings.gateway.port}"
        assert system.vllm_url == f"http://127.0.0.1:{settings.vllm.port}"
        assert holder(settings.gateway.port) is not None
        assert holder(settings.vllm.port) is not None
    assert of_folder(tmp_path) == []
    assert current(settings) is None


async def test_the_operators_key_is_made_once_readable_by_nobody_else_and_known_to_the_store(
    settings: Settings, pretend: Pretend
):
    async with running(settings, quiet()) as first:
        pass
    async with running(settings, quiet()) as second:
        assert second.key == first.key == settings.key_file.read_text().strip()
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    store = Store.open(settings.feedback.store_url)
    key = Keys(store).lookup(first.key)
    store.close()
    assert key is not None
    assert key.scopes == set(SCOPES)


def test_the_operators_key_of_an_earlier_version_stays_and_gets_the_scopes_that_are_new(settings: Settings):
    store = Store.open(settings.feedback.store_url)
    keys = Keys(store)
    secret = keys.create("operator", ["invoke", "rate", "operate"])
    settings.key_file.write_text(secret + "\n")
    assert operator_key(settings) == secret
    [key] = keys.list()
    store.close()
    assert key.scopes == set(SCOPES)


async def test_a_second_one_is_refused_and_told_of_the_first(settings: Settings, pretend: Pretend):
    async with running(settings, quiet()) as system:
        assert current(settings) == replace(system, processes=())
        with pytest.raises(
            FlywheelError, match=f"up already at {system.base_url}; to stop it: kill {os.getpid()}"
        ):
            async with running(settings, quiet()):
                pass
        assert current(settings) is not None


async def test_the_record_of_a_process_that_is_gone_is_passed_over(settings: Settings, pretend: Pretend):
    async with running(settings, quiet()):
        path = settings.var / "up.json"
        record = json.loads(path.read_text())
    for stale in ({**record, "started": record["started"] - 1}, {**record, "pid": 2**22 + 1}, {}):
        path.write_text(json.dumps(stale))
        assert current(settings) is None
    path.write_text("half a rec")
    async with running(settings, quiet()):
        assert current(settings) is not None


@pytest.mark.parametrize("section", ["gateway", "vllm"])
async def test_a_port_in_use_is_named_with_its_holder_and_the_setting(
    settings: Settings, pretend: Pretend, section: str, tmp_path: Path
):
    port = getattr(settings, section).port
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", port)
    async with server:
        with pytest.raises(StartError) as caught:
            async with running(settings, quiet()):
                pass
    assert f"port {port} is taken by" in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)
    assert f"FLYWHEEL_{section.upper()}__PORT" in str(caught.value)
    assert of_folder(tmp_path) == []


async def test_without_a_model_nothing_is_started(settings: Settings, pretend: Pretend, tmp_path: Path):
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(FlywheelError, match=r"safetensors missing.*flywheel setup"):
        async with running(settings, quiet()):
            pass
    assert not (settings.var / "up.json").exists()


async def test_a_gateway_that_does_not_start_takes_vllm_down_with_it(
    settings: Settings, pretend: Pretend, tmp_path: Path
):
    pretend(gateway=("/bin/sh", "-c", "echo no such agent; exit 2"))
    with pytest.raises(StartError, match=r"(?s)gateway ended with status 2.*no such agent"):
        async with running(settings, quiet()):
            pass
    assert of_folder(tmp_path) == []


async def test_ctrl_c_during_the_start_leaves_nothing(settings: Settings, pretend: Pretend, tmp_path: Path):
    pretend(vllm=(sys.executable, "-c", f"import time; time.sleep(600)  # {tmp_path}"))

    async def up() -> None:
        async with running(settings, quiet()):
            pass

    starting = asyncio.create_task(up())
    async with asyncio.timeout(10):
        while len(of_folder(tmp_path)) < 2:  # the guard and its program
            await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert of_folder(tmp_path) == []
    assert current(settings) is None


async def test_a_process_that_dies_later_is_noticed(settings: Settings, pretend: Pretend):
    async with running(settings, quiet()) as system:
        waiting = asyncio.create_task(system.died())
        await asyncio.sleep(0)
        (server,) = [p for p in of_folder(settings.root) if p.ppid() == system.processes[0].pid]
        server.kill()
        assert "vllm was ended by signal 9" in str(await asyncio.wait_for(waiting, 5))


async def test_an_external_vllm_that_does_not_answer_is_an_error(settings: Settings, pretend: Pretend):
    external = settings.vllm.model_copy(update={"manage": False})
    with pytest.raises(StartError, match=r"vLLM does not answer at .* manage = true"):
        async with running(settings.model_copy(update={"vllm": external}), quiet()):
            pass


def test_vllm_is_told_the_settings_and_listens_on_loopback_only(settings: Settings):
    section = settings.vllm.model_copy(
        update={"max_loras": 3, "kv_cache_gib": 1.5, "extra_args": ("--seed", "1")}
    )
    program = vllm_program(settings.model_copy(update={"vllm": section}))
    words = list(program.command)
    given = dict(pairwise(words))
    assert given["--host"] == "127.0.0.1"
    assert given["--model"] == str(settings.vllm.model)
    assert (given["--max-loras"], given["--max-cpu-loras"]) == ("3", "6")
    assert json.loads(given["--structured-outputs-config"])["disable_any_whitespace"] is True
    assert "--enable-auto-tool-choice" in words
    assert given["--tool-call-parser"] == "hermes"
    assert "--lora-target-modules" in words
    assert "lm_head" not in words
    assert words[-2:] == ["--seed", "1"]
    assert program.environment["VLLM_CPU_KVCACHE_SPACE"] == "1.5"
    assert program.environment["HF_HUB_OFFLINE"] == "1"


def test_on_a_gpu_the_cpu_cache_is_not_set(settings: Settings):
    section = settings.vllm.model_copy(update={"device": "cuda"})
    assert (
        "VLLM_CPU_KVCACHE_SPACE"
        not in vllm_program(settings.model_copy(update={"vllm": section})).environment
    )


def test_the_gateway_is_told_by_a_file_that_it_can_read(settings: Settings):
    telemetry = settings.telemetry.model_copy(update={"otlp_endpoint": "http://127.0.0.1:4318"})
    settings = settings.model_copy(update={"telemetry": telemetry})
    program = gateway_program(settings)
    assert stat.S_IMODE((settings.var / "gateway.json").stat().st_mode) == 0o600
    config = GatewayConfig.load(Path(program.command[-1]))
    assert config.port == settings.gateway.port
    assert config.vllm_url == settings.vllm.base_url
    assert config.telemetry == telemetry
    assert config.base_model == settings.vllm.served_name
    assert len(config.base_digest) == 12


def test_the_gateway_is_told_of_every_limit_and_bound(settings: Settings):
    limits = LimitsConfig(key=Quota(requests_per_minute=60), prices={"m": Price(prompt=1, completion=2)})
    section = settings.gateway.model_copy(
        update={"operator_tenant": "us", "max_body_bytes": 4_096, "idempotency_hours": 1.5, "workers": 3}
    )
    bounds = Bounds(max_messages=7)
    changed = settings.model_copy(update={"gateway": section, "limits": limits, "bounds": bounds})
    config = GatewayConfig.load(Path(gateway_program(changed).command[-1]))
    assert (config.limits, config.bounds, config.workers) == (limits, bounds, 3)
    assert (config.operator_tenant, config.max_body_bytes, config.idempotency_hours) == ("us", 4_096, 1.5)


def test_a_password_of_the_database_stands_neither_in_a_file_nor_on_a_command_line(settings: Settings):
    url = "postgresql://ann:s3cret%2F@db/flywheel"
    feedback = settings.feedback.model_copy(update={"store_url": url})
    settings = settings.model_copy(update={"feedback": feedback})
    kafka = KafkaOptions(bootstrap_servers=("kafka:9092",))
    gateway = gateway_program(settings)
    collector = collector_program(settings, kafka, 1)
    assert "s3cret" not in (settings.var / "gateway.json").read_text()
    assert "s3cret" not in str((gateway.command, collector.command))
    assert gateway.environment["PGPASSWORD"] == collector.environment["PGPASSWORD"] == "s3cret/"
    assert collector.command[-1] == "postgresql://ann@db/flywheel"


def test_gateway_and_collector_are_told_of_the_same_kafka(settings: Settings):
    kafka = KafkaOptions(
        bootstrap_servers=("kafka:9092",), prefix="ours", replication=3, min_insync_replicas=2
    )
    settings = settings.model_copy(update={"kafka": kafka})
    assert GatewayConfig.load(Path(gateway_program(settings).command[-1])).kafka == kafka
    told = collector_program(settings, kafka, 1).command[-2]
    assert KafkaOptions.model_validate_json(told) == kafka


async def test_without_a_broker_nothing_answers_and_it_says_where_one_was_looked_for(
    settings: Settings, pretend: Pretend, tmp_path: Path
):
    kafka = KafkaOptions(bootstrap_servers=(f"127.0.0.1:{free_port()}",))
    with pytest.raises(StartError, match=rf"Kafka at {kafka.bootstrap_servers[0]}.*see \[kafka\]"):
        async with running(settings.model_copy(update={"kafka": kafka}), quiet()):
            pass
    assert of_folder(tmp_path) == []


async def test_a_killed_collector_is_started_again_and_answers_go_on(
    piped: Settings, pretend: Pretend, monkeypatch: pytest.MonkeyPatch, root: Path
):
    monkeypatch.setenv("PYTHONPATH", str(root))
    two = piped.model_copy(update={"feedback": piped.feedback.model_copy(update={"collectors": 2})})
    async with running(two, quiet()) as system:
        first = await collectors(two, 2)
        psutil.Process(first[0]).kill()
        async with asyncio.timeout(60):
            while (now := await collectors(two, 2)) == first:
                await asyncio.sleep(0.1)
        assert first[1] in now
        assert [part.program.name for part in system.processes] == ["vllm", "gateway"]
        assert holder(two.gateway.port) is not None
    assert await asyncio.to_thread(pids, two) == []


async def collectors(settings: Settings, count: int) -> list[int]:
    async with asyncio.timeout(60):
        while len(found := pids(settings)) < count:
            await asyncio.sleep(0.1)
    return found


def pids(settings: Settings) -> list[int]:
    """The collectors of these settings, without their guards."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:3] == ["-m", "feedback.bus.kafka.collecting"] and settings.feedback.store_url in words:
            found.append(process.pid)
    return sorted(found)
