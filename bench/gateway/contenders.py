"""What is compared: how each is installed, started and asked. All of them speak to the same pretended vLLM."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway.upstream import MODEL
from feedback.store import Keys, Store
from gateway.config import GatewayConfig

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / "var" / "bench"
UPSTREAM_PORT, FIRST_PORT = 18_400, 18_401
UPSTREAM = f"http://127.0.0.1:{UPSTREAM_PORT}"
CHAT = "/v1/chat/completions"
# Pinned: LiteLLM has published stolen versions before, and a comparison must be one with known versions.
LITELLM, VLLM_ROUTER, TENSORZERO = "litellm[proxy]==1.106.2", "vllm-router==0.1.17", "tensorzero==2026.6.0"
PORTKEY = "@portkey-ai/gateway@1.15.2"
_INSTALL_SECONDS = 600


class SkippedError(Exception):
    """A contender cannot run here. The message says why."""


@dataclass(frozen=True)
class Contender:
    """A server, and how it is asked. `command` empty: nothing is started."""

    name: str
    command: tuple[str, ...]
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = MODEL
    one_core: bool = False  # also for the processes beside the server
    url_in_log: str = ""  # pattern; its group is the base URL, for servers that choose their port


def direct() -> Contender:
    """No gateway."""
    return Contender("direct", (), UPSTREAM + CHAT)


def bare() -> Contender:
    """The least that this stack can do."""
    port = FIRST_PORT
    command = (sys.executable, "-m", "uvicorn", "bench.gateway.bare:app", "--port", str(port))
    quiet = ("--no-access-log", "--log-level", "warning")
    return Contender("bare ASGI + aiohttp", (*command, *quiet), _url(port), {"UPSTREAM": UPSTREAM})


def ours(folder: Path, *, capture: bool, one_core: bool = False) -> Contender:
    """The gateway as `flywheel up` starts it, with one key and a store of its own."""
    port = FIRST_PORT + (6 if one_core else 1 if capture else 2)
    folder = folder / f"capture-{capture}-{one_core}"
    folder.mkdir()
    url = f"sqlite:///{folder / 'store.db'}"
    store = Store.open(url)
    key = Keys(store).create("bench", ["invoke"])
    store.close()
    config = GatewayConfig(
        port=port,
        vllm_url=UPSTREAM,
        base_model=MODEL,
        base_digest="bench",
        agents=(ROOT / "agents" / "sql_analyst",),
        knowledge=ROOT / "domains" / "insurance" / "knowledge.toml",
        store_url=url,
        outbox_path=folder / "outbox.db",
        delivery_process=True,
        max_concurrent=4_096,
        replica_limit=4_096,
        capture=capture,
    )
    path = folder / "gateway.json"
    path.write_text(config.model_dump_json())
    name = f"Flywheel, capture {'on' if capture else 'off'}{', all on one core' if one_core else ''}"
    command = (sys.executable, "-m", "gateway", "--config", str(path))
    headers = {"authorization": f"Bearer {key}"}
    return Contender(name, command, _url(port), headers=headers, one_core=one_core)


def litellm(folder: Path) -> Contender:
    """LiteLLM's proxy, one worker. Raises `SkippedError`."""
    binaries = _python("litellm", LITELLM)
    port = FIRST_PORT + 3
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{UPSTREAM}/v1", "api_key": "none"}
    config = folder / "litellm.json"  # JSON is YAML
    # Nobody but the load generator is to reach it, and a key in its database would only slow it down.
    general = {"dangerously_permit_weak_or_unset_master_key": True}
    model = {"model_name": MODEL, "litellm_params": parameters}
    config.write_text(json.dumps({"model_list": [model], "general_settings": general}))
    options = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    # Without this it asks a public host for prices.
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
    }
    return Contender("LiteLLM proxy", (str(binaries / "litellm"), *options), _url(port), environment)


def vllm_router(_: Path) -> Contender:
    """vLLM's router, in Rust. Raises `SkippedError`."""
    binaries = _python("vllm-router", VLLM_ROUTER)
    port = FIRST_PORT + 4
    options = (
        "--worker-urls",
        UPSTREAM,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--policy",
        "round_robin",
    )
    quiet = ("--log-level", "error", "--prometheus-port", str(FIRST_PORT + 20))
    return Contender("vllm-router (Rust)", (str(binaries / "vllm-router"), *options, *quiet), _url(port))


def tensorzero(folder: Path) -> Contender:
    """TensorZero's gateway, in Rust, out of its Python package; nothing is recorded. Raises `SkippedError`."""
    binaries = _python("tensorzero", TENSORZERO)
    config = folder / "tensorzero.toml"
    config.write_text(
        "[gateway]\nobservability.enabled = false\n"
        f'[models.{MODEL}]\nrouting = ["upstream"]\n'
        f'[models.{MODEL}.providers.upstream]\ntype = "openai"\nmodel_name = "{MODEL}"\n'
        f'api_base = "{UPSTREAM}/v1/"\napi_key_location = "none"\n'
    )
    script = (
        "import tensorzero, threading\n"
        f"gateway = tensorzero._start_http_gateway(config_file={str(config)!r}, clickhouse_url=None, "
        "postgres_url=None, valkey_url=None, async_setup=False)\n"
        "print('at', gateway.base_url, flush=True)\nthreading.Event().wait()\n"
    )
    return Contender(
        "TensorZero (Rust)",
        (str(binaries / "python"), "-c", script),
        "/chat/completions",
        model=f"tensorzero::model_name::{MODEL}",
        url_in_log=r"^at (\S+?)/?$",
    )


def portkey(_: Path) -> Contender:
    """Portkey's gateway, in Node. Raises `SkippedError`."""
    folder = INSTALLED / "portkey"
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise SkippedError("there is no Node on this machine")
    server = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not server.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _install((npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), PORTKEY))
    port = FIRST_PORT + 5
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{UPSTREAM}/v1",
        "authorization": "Bearer x",
    }
    environment = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"}
    command = (node, str(server), f"--port={port}", "--headless")
    return Contender("Portkey (Node)", command, _url(port), environment, headers)


def base_url(contender: Contender, log: Path) -> str | None:
    """Where to ask; None as long as the server has not said it."""
    if not contender.url_in_log:
        return contender.url
    found = re.search(contender.url_in_log, log.read_text(), re.MULTILINE)
    return found.group(1) + contender.url if found else None


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}{CHAT}"


def _python(name: str, requirement: str) -> Path:
    """The binaries of an environment of its own. Raises `SkippedError`."""
    folder = INSTALLED / name
    marker = folder / "INSTALLED"
    if not marker.exists() or marker.read_text() != requirement:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _install((sys.executable, "-m", "venv", str(folder)))
        pip = (
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
        )
        _install((*pip, requirement))
        marker.write_text(requirement)
    return folder / "bin"


def _install(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INSTALL_SECONDS,
            env=dict(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SkippedError(f"it does not install: {error}") from error
    if done.returncode:
        raise SkippedError(
            f"it does not install: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        )
