"""A full disk loses nothing that was acknowledged, and a gateway that cannot start says why in one line."""

import json
import socket
import sqlite3

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
            ({"port": 0, "agents": ["/x"]}, "/x"),
            ({"port": 0, "base_model": AGENT}, AGENT),
            ({"port": 0, "store_url": "postgresql://nobody@127.0.0.1:1/none"}, "cannot open the store"),
            ({"port": 0, "store_url": "mysql://nobody@127.0.0.1:1/none"}, "the store is a SQLite file"),
        ):
            path.write_text(json.dumps({**good, **extra}))
            assert main(["--config", str(path)]) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and words in error


def test_a_configuration_is_read_back_as_it_was_written(world: World) -> None:
    path = world.folder / "gateway.json"
    path.write_text(world.config.model_dump_json())
    assert GatewayConfig.load(path) == world.config
