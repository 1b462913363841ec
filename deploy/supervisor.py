"""Flywheel on one machine: its processes as children, started in order, watched, and stopped together.

Without vLLM or the gateway nothing answers: when one of them dies, that is the end. Collectors, and a broker and a
database of this machine's own, are started again: answers go on without them, and events wait in the outbox.

async with running(load()) as system:
    ...  # system.base_url answers
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp
import psutil
from rich.console import Console
from sqlalchemy import make_url

from deploy import keys, models, process
from deploy import local as services
from deploy.errors import FlywheelError
from deploy.gateway_config import gateway_config
from deploy.process import Process, Program, StartError, answers, holder
from deploy.settings import Settings
from feedback.bus.base import BusError
from feedback.bus.kafka.options import KafkaOptions

_GATEWAY_READY_SECONDS = 60.0


@dataclass(frozen=True)
class System:
    """A running Flywheel. `key` is the operator's; None for `processes` that this process did not start."""

    base_url: str
    vllm_url: str
    key: str
    pid: int
    processes: tuple[Process, ...] = ()

    async def died(self) -> StartError:
        """Wait until one of the processes ends; say which, and why."""
        waiting = {asyncio.create_task(part.died()): part for part in self.processes}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return waiting[next(iter(done))].death()


@contextlib.asynccontextmanager
async def running(
    settings: Settings, console: Console | None = None, *, local: bool = False
) -> AsyncIterator[System]:
    """Start everything, wait until it answers, and stop it at the end. Raises `FlywheelError`.

    `local`: the broker and the database of `deploy.local` as well, which the settings then name already.

    SIGTERM, like Ctrl-C, cancels the caller's task, so that the end is an orderly one.
    """
    console = console or Console(stderr=True)
    _check(settings)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        stack.enter_context(_sigterm_cancels())
        stack.enter_context(_recorded(settings))
        if local:
            for prepare in services.programs(settings):
                program = await asyncio.to_thread(prepare)
                await _start(program, stack, session, console, keep=True)
        if settings.kafka is not None:
            await _collect(settings, settings.kafka, stack, session, console)
        parts: list[Process] = []
        if settings.vllm.manage:
            parts.append(await _start(vllm_program(settings), stack, session, console))
            await _warm_up(session, settings)
        elif not await answers(session, f"{settings.vllm.base_url}/health"):
            raise StartError(
                f"vLLM does not answer at {settings.vllm.base_url}: start it, or set [vllm] manage = true"
            )
        parts.append(await _start(gateway_program(settings), stack, session, console))
        yield System(
            settings.base_url, settings.vllm.base_url, keys.operator_key(settings), os.getpid(), tuple(parts)
        )


async def _collect(
    settings: Settings,
    kafka: KafkaOptions,
    stack: contextlib.AsyncExitStack,
    session: aiohttp.ClientSession,
    console: Console,
) -> None:
    from feedback.bus.kafka import topics  # noqa: PLC0415  # kafka-python is an extra

    try:
        made = await asyncio.to_thread(topics.create, kafka)
    except BusError as error:
        raise StartError(f"{error}; see [kafka], and `flywheel kafka status`") from error
    if made:
        console.print(f"made the topics {', '.join(made)}", highlight=False)
    for number in range(1, settings.feedback.collectors + 1):
        await _start(collector_program(settings, kafka, number), stack, session, console, keep=True)


async def _start(
    program: Program,
    stack: contextlib.AsyncExitStack,
    session: aiohttp.ClientSession,
    console: Console,
    *,
    keep: bool = False,
) -> Process:
    def tell(death: StartError) -> None:
        console.print(f"{death}\n{program.name} is started again", style="red", highlight=False, markup=False)

    part = await stack.enter_async_context(process.kept(program, tell) if keep else process.running(program))
    with console.status("") as status:
        ready = asyncio.create_task(part.ready(session))
        started = time.perf_counter()
        try:
            while not ready.done():
                status.update(
                    f"{program.name} is starting: {time.perf_counter() - started:.0f} s, log in {program.log}"
                )
                await asyncio.wait({ready}, timeout=0.5)
        finally:
            ready.cancel()
    console.print(f"{program.name} is ready after {await ready:.0f} s", style="green", highlight=False)
    return part


async def _warm_up(session: aiohttp.ClientSession, settings: Settings) -> None:
    """The first requests compile kernels and the grammar engine; nobody should wait for that with a question."""
    body = {
        "model": settings.vllm.served_name,
        "messages": [{"role": "user", "content": "Say yes."}],
        "max_tokens": 8,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "warm_up",
                "schema": {"type": "object", "properties": {"a": {"type": "string"}}},
            },
        },
    }
    url = f"{settings.vllm.base_url}/v1/chat/completions"
    async with session.post(url, json=body, timeout=aiohttp.ClientTimeout(total=120)) as response:
        if response.status != 200:
            raise StartError(
                f"vLLM started but does not generate ({response.status}): {await response.text()}"
            )


def vllm_program(settings: Settings) -> Program:
    """vLLM's OpenAI server, on loopback, with adapters that can be loaded while it runs.

    Whitespace is fixed in structured answers: a grammar that admits any lets a weak model fill its budget with blanks.
    Adapters are kept off lm_head: vLLM 0.32 wraps it otherwise, needed or not, and then its engine dies of a request
    for prompt logprobs (the gateway's probes) beside other requests.
    """
    vllm = settings.vllm
    structured = {"backend": "xgrammar", "disable_any_whitespace": True}
    flags = {
        "--model": vllm.model,
        "--served-model-name": vllm.served_name,
        "--host": "127.0.0.1",
        "--port": vllm.port,
        "--dtype": "bfloat16",
        "--max-model-len": vllm.max_model_len,
        "--max-num-seqs": vllm.max_num_seqs,
        "--max-lora-rank": vllm.max_lora_rank,
        "--max-loras": vllm.max_loras,
        "--max-cpu-loras": 2 * vllm.max_loras,
        "--structured-outputs-config": json.dumps(structured),
        "--tool-call-parser": vllm.tool_call_parser,
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--enable-lora", "--enable-auto-tool-choice"]
    command += [str(word) for flag in flags.items() for word in flag]
    command += ["--lora-target-modules", *vllm.lora_modules]
    environment = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if vllm.device == "cpu":
        environment["VLLM_CPU_KVCACHE_SPACE"] = f"{vllm.kv_cache_gib:g}"
    return Program(
        name="vLLM",
        command=(*command, "--disable-uvicorn-access-log", *vllm.extra_args),
        environment=environment,
        ready=process.at(f"http://127.0.0.1:{vllm.port}/health"),
        log=settings.logs / "vllm.log",
        folder=settings.root,
        ready_seconds=vllm.start_seconds,
        mend="Run `flywheel doctor`; if memory is short, lower [vllm] kv_cache_gib or max_num_seqs.",
    )


def gateway_program(settings: Settings) -> Program:
    """The gateway, told by a file."""
    file = settings.var / "gateway.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    file.chmod(0o600)  # the URL of a Redis holds its password
    store_url, password = split_password(settings.feedback.store_url)
    config = gateway_config(settings).model_copy(update={"store_url": store_url})
    file.write_text(config.model_dump_json(indent=2))
    return Program(
        name="gateway",
        command=(sys.executable, "-m", "gateway", "--config", str(file)),
        environment=password,
        ready=process.at(f"{settings.base_url}/readyz"),
        log=settings.logs / "gateway.log",
        folder=settings.root,
        ready_seconds=_GATEWAY_READY_SECONDS,
        mend="Run `flywheel doctor`.",
    )


def collector_program(settings: Settings, kafka: KafkaOptions, number: int) -> Program:
    """One of the collectors, which share the topics' partitions."""
    store_url, password = split_password(settings.feedback.store_url)
    return Program(
        name=f"collector {number}",
        command=(
            *(sys.executable, "-m", "feedback.bus.kafka.collecting"),
            *(kafka.model_dump_json(), store_url),
        ),
        environment=password,
        ready=process.at_once,
        log=settings.logs / f"collector-{number}.log",
        folder=settings.root,
        ready_seconds=_GATEWAY_READY_SECONDS,
        mend="Run `flywheel doctor`.",
    )


def split_password(store_url: str) -> tuple[str, dict[str, str]]:
    """The URL without its password, and the variable that holds it for libpq: everybody may read command lines."""
    url = make_url(store_url)
    if url.password is None:
        return store_url, {}
    without = url._replace(password=None)  # `set` takes None for “as it is”
    return without.render_as_string(), {"PGPASSWORD": str(url.password)}


def current(settings: Settings) -> System | None:
    """The Flywheel that runs with these settings' folder; None when none does. A stale record is passed over."""
    try:
        record = json.loads((settings.var / "up.json").read_text())
        if psutil.Process(record["pid"]).create_time() != record["started"]:
            return None
        return System(
            record["base_url"], record["vllm_url"], settings.key_file.read_text().strip(), record["pid"]
        )
    except (OSError, ValueError, KeyError, psutil.Error):
        return None


def _check(settings: Settings) -> None:
    if (other := current(settings)) is not None:
        raise FlywheelError(f"Flywheel is up already at {other.base_url}; to stop it: kill {other.pid}")
    ports = {"gateway": settings.gateway.port} | (
        {"vllm": settings.vllm.port} if settings.vllm.manage else {}
    )
    for section, port in ports.items():
        if (who := holder(port)) is not None:
            raise StartError(
                f"port {port} is taken by {who}: end it, or set [{section}] port (FLYWHEEL_{section.upper()}__PORT)"
            )
    if settings.vllm.manage:
        models.check(settings.vllm.model)


@contextlib.contextmanager
def _recorded(settings: Settings) -> Iterator[None]:
    """Leave word of this system for `current`; a process id alone may belong to another by then."""
    path = settings.var / "up.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    me = psutil.Process()
    record = {
        "pid": me.pid,
        "started": me.create_time(),
        "base_url": settings.base_url,
        "vllm_url": settings.vllm.base_url,
    }
    path.write_text(json.dumps(record))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _sigterm_cancels() -> Iterator[None]:
    task = asyncio.current_task()
    assert task is not None, "called from a coroutine"
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
