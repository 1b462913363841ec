"""Nothing that was acknowledged is lost: not on a full disk, not by kill -9."""

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.__main__ import main
from gateway.config import GatewayConfig
from tests.gateway.conftest import AGENT, QUESTION, World, sse, until

CHAT = "/v1/chat/completions"
GOOD = {"model": AGENT, "messages": QUESTION}


async def test_a_full_disk_is_503_and_what_was_acknowledged_is_kept(world: World) -> None:
    async with world.running(outbox_max_bytes=32_768):
        client = world.http()
        store = sqlite3.connect(world.folder / "store.db", isolation_level=None)
        store.execute("BEGIN IMMEDIATE")  # the store takes nothing: everything stays in the outbox
        acknowledged: list[str] = []
        while (response := await client.post(CHAT, json=GOOD)).status_code == 200:
            acknowledged.append(response.json()["id"])
        assert (response.status_code, response.json()["error"]["code"]) == (503, "storage_full")
        assert "free space" in response.json()["error"]["message"].lower()
        assert response.headers["retry-after"]
        streamed = await client.post(CHAT, json={**GOOD, "stream": True})
        *chunks, last = sse(streamed.text)
        assert last["error"]["code"] == "storage_full"
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        rating = await client.post(
            "/v1/feedback", json={"request_id": acknowledged[0], "comment": "x" * 9_000, "value": True}
        )
        assert rating.status_code == 503
        ops = world.http("ops")
        policy, path = world.checkpoint("d1")
        evidence = {"report": "x" * 9_000}
        change = await ops.post(
            "/v1/policies", json={"policy": policy, "path": str(path), "evidence": evidence}
        )
        assert change.status_code == 503
        assert policy not in json.dumps((await ops.get("/v1/policies")).json())
        store.execute("ROLLBACK")
        store.close()
        assert acknowledged
        for request_id in acknowledged:
            assert (await world.recorded(request_id)).status == "completed"

        async def works_again() -> bool:
            return (await client.post(CHAT, json=GOOD)).status_code == 200

        await until(works_again)
    async with world.store() as opened:
        recorded = {event.request_id for event in opened.requests(tenant="default")}
    assert response.headers["x-request-id"] not in recorded
    assert streamed.headers["x-request-id"] not in recorded


@asynccontextmanager
async def _process(world: World, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway as operators run it, ready; killed at the end if it still runs."""
    path = world.folder / "gateway.json"
    path.write_text(world.config.model_copy(update={"port": port}).model_dump_json())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        "--config",
        str(path),
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
    )
    try:
        async with httpx.AsyncClient() as client:

            async def ready() -> bool:
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                except httpx.TransportError:
                    assert process.returncode is None, "the gateway has ended"
                    return False

            await until(ready, 30)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_kill_9_loses_no_request_whose_answer_was_complete(world: World) -> None:
    world.vllm.seconds_per_chunk = 0.002
    complete: set[str] = set()
    port = _free_port()

    async def work(client: httpx.AsyncClient, number: int) -> None:
        stream = number % 2 == 0
        while True:
            async with client.stream("POST", CHAT, json={**GOOD, "stream": stream}) as response:
                assert response.status_code == 200
                body = ""
                async for text in response.aiter_text():
                    body += text
                    if stream and '"finish_reason":"stop"' in body:  # from here on the client has its answer
                        complete.add(response.headers["x-request-id"])
                if not stream:
                    complete.add(json.loads(body)["id"])

    for _ in range(2):
        before = len(complete)
        async with _process(world, port) as process:
            headers = {"authorization": f"Bearer {world.keys['ann']}"}
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
                workers = [asyncio.create_task(work(client, number)) for number in range(16)]
                await asyncio.sleep(random.uniform(0.5, 0.9))
                process.send_signal(signal.SIGKILL)
                results = await asyncio.gather(*workers, return_exceptions=True)
            assert all(isinstance(result, httpx.TransportError) for result in results), results
        assert len(complete) > before
    async with world.running():  # the next start takes up what the killed process left in its outbox
        pass
    async with world.store() as store:
        recorded = {event.request_id for event in store.requests(tenant="default", status="completed")}
    assert complete <= recorded
    assert world.config.outbox_path.exists()


async def test_sigterm_ends_the_process_when_its_requests_are_answered(world: World) -> None:
    world.vllm.seconds_per_chunk = 0.1
    port = _free_port()
    async with _process(world, port) as process:
        headers = {"authorization": f"Bearer {world.keys['ann']}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            asking = asyncio.create_task(client.post(CHAT, json=GOOD))
            await until(lambda: world.vllm.running)
            process.terminate()
            assert (await asking).status_code == 200
        assert await asyncio.wait_for(process.wait(), 10) == 0
    async with world.store() as store:
        assert store.counts()["requests"] == 1


async def test_a_taken_port_or_a_wrong_configuration_is_one_line_and_exit_code_2(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = world.folder / "gateway.json"
        port = taken.getsockname()[1]
        good = json.loads(world.config.model_copy(update={"port": port}).model_dump_json())
        for extra, words in (
            ({}, f"127.0.0.1:{port}"),
            ({"prt": 1}, "prt"),
            ({"agents": ["/x"]}, "/x"),
            ({"base_model": AGENT}, AGENT),
        ):
            path.write_text(json.dumps({**good, **extra}))
            assert main(["--config", str(path)]) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and words in error


def test_a_configuration_is_read_back_as_it_was_written(world: World) -> None:
    path = world.folder / "gateway.json"
    path.write_text(world.config.model_dump_json())
    assert GatewayConfig.load(path) == world.config
