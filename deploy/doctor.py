"""Looks at this machine and says what is missing or broken, and how to mend each. Changes nothing."""

import asyncio
import ctypes
import importlib.util
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import metadata

import aiohttp
import psutil
from packaging.requirements import Requirement
from rich.console import Console

from deploy import models, pipe, sources, supervisor
from deploy.errors import FlywheelError
from deploy.finding import Finding
from deploy.process import answers, holder
from deploy.settings import Settings
from feedback.redaction import Redactor

_IMPORT_SECONDS = 180


def examine(settings: Settings, console: Console) -> bool:
    """Print every finding as it is made; return whether nothing is broken."""
    sound = True
    for check in CHECKS:
        for finding in check(settings):
            finding.print(console)
            sound &= finding.verdict != "broken"
    return sound


def python(_: Settings) -> Iterator[Finding]:
    """The interpreter and the operating system."""
    what = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if not (3, 11) <= sys.version_info < (3, 13):
        yield Finding(
            "broken", what, "Flywheel needs Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.11"
        )
    elif (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        yield Finding(
            "broken", what, "vLLM's CPU build needs Linux on x86-64; elsewhere set [vllm] manage = false"
        )
    else:
        yield Finding("ok", what)


def packages(settings: Settings) -> Iterator[Finding]:
    """Whether what Flywheel asks for is installed, in versions that it admits."""
    mend = "run `make setup`"
    try:
        wanted = [Requirement(line) for line in metadata.requires("flywheel") or ()]
    except metadata.PackageNotFoundError:
        yield Finding("broken", "Flywheel itself is not installed in this environment", mend)
        return
    extras = {"train", "serve" if settings.vllm.device == "cuda" else "serve-cpu"}
    faults = []
    needed = [
        r for r in wanted if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)
    ]
    for requirement in needed:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            faults.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement.name} is {version}, needed: {requirement.specifier}")
    for fault in faults:
        yield Finding("broken", fault, mend)
    if not faults:
        yield Finding("ok", f"{len(needed)} packages, all in versions that fit")


def imports(_: Settings) -> Iterator[Finding]:
    """Whether the heavy libraries load; each in a process of its own, as a broken one may take its process with it."""
    for name in ("torch", "vllm"):
        if importlib.util.find_spec(name) is None:
            yield Finding("broken", f"{name} is not installed", "run `make setup`")
            continue
        command = [sys.executable, "-W", "ignore", "-c", f"import {name}; print({name}.__version__)"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            yield Finding(
                "broken", f"{name} did not load within {_IMPORT_SECONDS} s", "is the disk or memory full?"
            )
            continue
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            yield Finding("broken", f"{name} does not load: {reason}", "remove .venv and run `make setup`")
        else:
            yield Finding("ok", f"{name} {done.stdout.split()[-1]}")


def model(settings: Settings) -> Iterator[Finding]:
    """The base model's folder."""
    try:
        yield Finding("ok", f"model {models.digest(settings.vllm.model)} in {settings.vllm.model}")
    except FlywheelError as error:
        yield Finding("broken", str(error))


def databases(settings: Settings) -> Iterator[Finding]:
    """Whether every instance is a database with something in it."""
    mend = "run `flywheel setup`, or mend [sql] databases"
    for path in settings.sql.databases:
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                (tables,) = connection.execute(
                    "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table'"
                ).fetchone()
        except sqlite3.Error as error:
            yield Finding("broken", f"database {path}: {error}", mend)
            continue
        yield Finding(
            "ok" if tables else "broken", f"database {path} has {tables} tables", "" if tables else mend
        )


def services(settings: Settings) -> Iterator[Finding]:
    """Whether Flywheel runs and answers, or could be started."""
    running = supervisor.current(settings)
    expected = {"gateway": (settings.gateway.port, f"{settings.base_url}/readyz")}
    if settings.vllm.manage:
        expected["vllm"] = (settings.vllm.port, f"{settings.vllm.base_url}/health")
    elif not asyncio.run(_answers(f"{settings.vllm.base_url}/health")):
        yield Finding(
            "broken", f"vLLM does not answer at {settings.vllm.base_url}", "start it, or see [vllm] manage"
        )
    for name, (port, url) in expected.items():
        who = holder(port)
        if running is None and who is None:
            yield Finding("ok", f"{name} does not run; its port {port} is free")
        elif running is None:
            yield Finding(
                "broken", f"port {port} of the {name} is taken by {who}", f"end it, or set [{name}] port"
            )
        elif asyncio.run(_answers(url)):
            yield Finding("ok", f"{name} answers at {url}")
        else:
            yield Finding(
                "broken", f"{name} should answer at {url} and does not", f"see {settings.logs}/{name}.log"
            )


def external(settings: Settings) -> Iterator[Finding]:
    """Which models of other providers may be asked, so that it is known what leaves this network."""
    if not settings.external:
        yield Finding("ok", "no external model: nothing that is asked or answered leaves this network")
    for entry in settings.external:
        where = entry.api_base or "its provider"
        what = f"external model {entry.name}: what is asked of it goes to {entry.model} at {where}"
        if entry.key_variable is not None and not os.environ.get(entry.key_variable):
            mend = f"set the environment variable {entry.key_variable} where the gateway is started"
            yield Finding("broken", f"{what}, but its key is missing", mend)
        else:
            yield Finding("ok", what)


def redaction(settings: Settings) -> Iterator[Finding]:
    """Whether what `[redaction]` names can be looked for here, pipelines of Presidio included."""
    try:
        redactor = Redactor(settings.redaction)
    except ValueError as error:
        yield Finding("broken", f"redaction: {error}", "mend [redaction]")
        return
    on = "texts are redacted by [redaction] before they are recorded"
    yield Finding("ok", on if redactor.on else "no redaction: requests and ratings are recorded as they are")


def resources(settings: Settings) -> Iterator[Finding]:
    """Disk, memory, GPU."""
    free = shutil.disk_usage(settings.root).free / 2**30
    low = "below 5 GiB the outbox may fill the disk: make room"
    yield Finding("ok" if free >= 5 else "warning", f"{free:.0f} GiB of disk free", "" if free >= 5 else low)
    memory = psutil.virtual_memory().available / 2**30
    needed = (
        3 + settings.vllm.kv_cache_gib
    )  # measured: vLLM with the small model takes 2.7 GiB beside its cache
    enough = memory >= needed or supervisor.current(settings) is not None
    short = f"vLLM will need about {needed:.0f} GiB: close something, or lower [vllm] kv_cache_gib"
    yield Finding(
        "ok" if enough else "warning", f"{memory:.0f} GiB of memory available", "" if enough else short
    )
    gpu = _has_cuda()
    if settings.vllm.device == "cuda" and not gpu:
        yield Finding(
            "broken", "no CUDA GPU, but [vllm] device is cuda", "install NVIDIA's driver, or set device = cpu"
        )
    else:
        yield Finding("ok", "a CUDA GPU" if gpu else "no CUDA GPU: vLLM runs on the CPU")


def _has_cuda() -> bool:
    try:
        return int(ctypes.CDLL("libcuda.so.1").cuInit(0)) == 0
    except OSError:
        return False


async def _answers(url: str) -> bool:
    async with aiohttp.ClientSession() as session:
        return await answers(session, url)


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    python,
    packages,
    imports,
    model,
    databases,
    sources.manifests,
    sources.databases,
    sources.documents,
    services,
    pipe.store,
    pipe.kafka,
    external,
    redaction,
    resources,
)
