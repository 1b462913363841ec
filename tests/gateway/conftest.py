"""A real gateway under uvicorn on a free port, in front of a fake vLLM, with a store of its own."""

import asyncio
import json
import shutil
import socket
import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from feedback.events import RequestFinished
from feedback.store import Keys, Store
from gateway.app import create_app
from gateway.config import GatewayConfig
from gateway.http_server import bounded_http
from gateway.scopes import SCOPES
from gateway.state import Gateway
from gateway.workers.place import Place
from tests.gateway.fake_vllm import BASE, FakeVllm, logprob_of
from tests.gateway.openapi import Published, published_document

AGENT = "sql-analyst"
BASE_POLICY = f"{AGENT}@base-b0"
TEXT = "How many claims are open?"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": TEXT}]
_ROOT = Path(__file__).parents[2]
_KNOWLEDGE = """
[[schemas]]
text = "claims(claim_id, status, amount)"
[[examples]]
question = "How many customers are there?"
answer = '{"sql": "SELECT count(*) FROM customers"}'
[[heuristics]]
text = "A claim is open when its status is open."
"""


@dataclass(frozen=True)
class Ground:
    """What every gateway of the test session starts from: a migrated store with keys, and the secrets of the keys."""

    store: Path
    keys: dict[str, str]


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    path = tmp_path_factory.mktemp("ground") / "store.db"
    store = Store.open(f"sqlite:///{path}")
    keys = Keys(store)
    secrets = {
        "ann": keys.create("ann", ["invoke", "rate"]),
        "bob": keys.create("bob", ["invoke", "rate"]),
        "eve": keys.create("eve", ["invoke", "rate"], tenant="other"),
        "ops": keys.create("ops", ["invoke", "rate", "operate"]),
        "rev": keys.create("rev", ["review"]),
        "adm": keys.create("adm", ["admin"]),
        "mal": keys.create("mal", SCOPES, tenant="other"),  # may do everything, in another tenant
    }
    store.close()
    return Ground(path, secrets)


@pytest.fixture
def published() -> Published:
    """OpenAI's published OpenAPI document; a test that asks for it is skipped where it is absent."""
    return published_document()


@dataclass
class World:
    """One test's fake vLLM, gateway and files."""

    folder: Path
    keys: dict[str, str]
    vllm: FakeVllm
    config: GatewayConfig
    url: str = ""
    gateway: Gateway | None = None
    _clients: list[httpx.AsyncClient | AsyncOpenAI] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, place: Place | None = None, **changes: Any) -> AsyncIterator["World"]:
        """The gateway serves, from here until the end of the block; then it has drained."""
        self.config = self.config.model_copy(update=changes)
        app = create_app(self.config, place)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            settings = uvicorn.Config(
                app,
                http=bounded_http(self.config.bounds.max_header_bytes),
                lifespan="on",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
            )
            server = uvicorn.Server(settings)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started or task.done(), 30)
            if task.done():
                await task
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self.gateway = app.state.gateway
            try:
                yield self
            finally:
                for client in self._clients:
                    await (client.aclose() if isinstance(client, httpx.AsyncClient) else client.close())
                self._clients.clear()
                server.should_exit = True
                await task

    def http(self, who: str | None = "ann") -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.keys[who]}"} if who else {}
        # A context without certificates: reading them takes longer than most tests.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, verify=context)
        self._clients.append(client)
        return client

    def openai(self, who: str = "ann") -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.keys[who], max_retries=0)
        self._clients.append(client)
        return client

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        store = Store.open(self.config.store_url)
        try:
            yield store
        finally:
            store.close()

    async def recorded(self, request_id: str, tenant: str = "default") -> RequestFinished:
        """The request, when it has landed."""
        async with self.store() as store:
            await until(lambda: store.request(request_id, tenant) is not None)
            found = store.request(request_id, tenant)
            assert found is not None
            return found

    def checkpoint(self, digest: str, *, complete: bool = True, shift: float = 0.0) -> tuple[str, Path]:
        """A published checkpoint whose probes are what the fake vLLM will say, plus `shift`."""
        policy = f"{AGENT}@{digest}"
        path = self.folder / "checkpoints" / digest
        path.mkdir(parents=True)
        tokens = [11, 12, 13]
        logprobs = [logprob_of(policy, token) + shift for token in tokens]
        probes = [{"prompt_token_ids": [1, 2], "completion_token_ids": tokens, "logprobs": logprobs}]
        (path / "probes.json").write_text(json.dumps(probes))
        (path / "manifest.json").write_text(json.dumps({"policy": policy, "base": "b0"}))
        if complete:
            (path / "COMPLETE").touch()
        return policy, path

    async def evaluated(self, digest: str, **how: Any) -> str:
        """A policy that has been registered and has passed."""
        policy, path = self.checkpoint(digest, **how)
        ops = self.http("ops")
        body = {"policy": policy, "path": str(path), "evidence": {"run": "r1"}}
        assert (await ops.post("/v1/policies", json=body)).status_code == 201
        verdict = {"passed": True, "reasons": ["better by 5 points"], "evidence": {"delta": 5}}
        assert (await ops.post(f"/v1/policies/{policy}/evaluation", json=verdict)).status_code == 200
        return policy

    async def promote(self, policy: str) -> httpx.Response:
        return await self.http("ops").post(f"/v1/policies/{policy}/promote", json={"reason": "it passed"})

    async def rollback(self) -> httpx.Response:
        return await self.http("ops").post(f"/v1/agents/{AGENT}/rollback", json={"reason": "complaints"})


@pytest.fixture
async def world(ground: Ground, tmp_path: Path) -> AsyncIterator[World]:
    """A fake vLLM and a configuration; the test starts the gateway with `world.running()`."""
    shutil.copy(ground.store, tmp_path / "store.db")
    (tmp_path / "knowledge.toml").write_text(_KNOWLEDGE)
    async with FakeVllm().served() as vllm:
        config = GatewayConfig(
            port=0,
            vllm_url=vllm.url,
            base_model=BASE,
            base_digest="b0",
            agents=(_ROOT / "agents" / "sql_analyst",),
            knowledge=tmp_path / "knowledge.toml",
            store_url=f"sqlite:///{tmp_path / 'store.db'}",
            outbox_path=tmp_path / "outbox.db",
            drain_seconds=5,
        )
        yield World(tmp_path, ground.keys, vllm, config)


@pytest.fixture
async def live(world: World) -> AsyncIterator[World]:
    """A gateway that runs for the whole test."""
    async with world.running():
        yield world


async def until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], seconds: float = 10.0
) -> None:
    """Return when the condition holds. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if isinstance(result, Awaitable):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)


def sse(body: str) -> list[Any]:
    """The data of server-sent events; `[DONE]` as a string."""
    lines = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@asynccontextmanager
async def disk_busy(world: World, path: str, body: dict[str, Any]) -> AsyncIterator[list[str]]:
    """Within, an answer has been generated and waits for the disk: what its client has seen. Behind, it is whole."""
    seen: list[str] = []

    async def ask() -> None:
        async with world.http().stream("POST", path, json=body) as response:
            async for text in response.aiter_text():
                seen.append(text)  # noqa: PERF401  # it is read while it grows

    with sqlite3.connect(world.config.outbox_path, isolation_level=None) as disk:
        disk.execute("BEGIN IMMEDIATE")  # whoever writes the outbox now has to wait
        asking = asyncio.create_task(ask())
        await until(lambda: world.vllm.requests and not world.vllm.running)
        await asyncio.sleep(0.2)
        assert not asking.done()
        yield seen
        disk.execute("ROLLBACK")
    disk.close()
    await asking


async def client_that_leaves(world: World, path: str, body: dict[str, Any]) -> RequestFinished:
    """What is recorded of a request whose client goes while it is being answered."""
    world.vllm.seconds_per_chunk = 0.2
    headers = {"x-episode-id": "gone"}
    request = asyncio.create_task(world.http().post(path, json=body, headers=headers))
    await until(lambda: world.vllm.running)
    await asyncio.sleep(0.3)
    request.cancel()
    await until(lambda: world.vllm.aborted == 1)
    async with world.store() as store:
        await until(lambda: list(store.requests(tenant="default", episode_id="gone")))
        (event,) = store.requests(tenant="default", episode_id="gone")
    return event
