"""Alive is whoever answers; ready is who can answer requests and record them."""

import sqlite3

from tests.gateway.conftest import AGENT, QUESTION, World, until

CHAT = "/v1/chat/completions"
GOOD = {"model": AGENT, "messages": QUESTION}


async def missing(world: World) -> list[str]:
    """What /readyz says is missing; its status says the same."""
    response = await world.http(None).get("/readyz")
    answer = response.json()
    assert response.status_code == (503 if answer["missing"] else 200)
    assert answer["ready"] == (not answer["missing"])
    return list(answer["missing"])


async def alive(world: World) -> bool:
    response = await world.http(None).get("/healthz")
    return (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_gateway_whose_parts_all_work_is_ready(live: World) -> None:
    assert await missing(live) == [] and await alive(live)


async def test_without_vllm_it_is_alive_and_not_ready(world: World) -> None:
    async with world.running(vllm_url="http://127.0.0.1:9"):
        assert "vLLM at http://127.0.0.1:9 does not answer" in await missing(world)
        assert await alive(world)


async def test_a_store_that_cannot_be_read_is_named_and_takes_no_gateway_that_serves_out_of_the_balancer(
    live: World,
) -> None:
    assert live.gateway is not None
    assert (await live.http().post(CHAT, json=GOOD)).status_code == 200
    live.gateway.store._engine.dispose()
    with sqlite3.connect(live.folder / "store.db") as disk:
        disk.execute("ALTER TABLE dead_letters RENAME TO away")
    disk.close()
    response = await live.http(None).get("/readyz")
    told = response.json()
    assert (response.status_code, told["ready"], told["missing"]) == (200, True, [])
    (reason,) = told["degraded"]
    assert reason.startswith("the store does not answer: no such table")
    assert (await live.http().post(CHAT, json=GOOD)).status_code == 200
    assert await alive(live)


async def test_an_outbox_that_takes_nothing_is_named_until_it_does_again(world: World) -> None:
    async with world.running(outbox_max_bytes=32_768):
        client = world.http()
        store = sqlite3.connect(world.folder / "store.db", isolation_level=None)
        store.execute("BEGIN IMMEDIATE")  # the store takes nothing: everything stays in the outbox
        while (await client.post(CHAT, json=GOOD)).status_code == 200:
            pass
        (reason,) = await missing(world)
        assert reason.startswith("the outbox takes no events: database or disk is full")
        store.execute("ROLLBACK")
        store.close()

        async def ready() -> bool:
            return await missing(world) == []

        await until(ready)
        assert (await client.post(CHAT, json=GOOD)).status_code == 200


async def test_an_active_policy_that_is_not_loaded_is_named(world: World) -> None:
    async with world.running():
        policy = await world.evaluated("d1")
        await world.promote(policy)
    world.vllm.restart()
    world.vllm.drift = -1.0  # what it loads now is another model
    async with world.running():
        await until(lambda: world.gateway and world.gateway.keeper.problems)
        assert f"{policy}, the active policy of {AGENT}, is not loaded" in await missing(world)
