"""The store's server has stopped and not ended: who asks is told so, and who is answered without it is answered."""

import asyncio
from typing import Any

import pytest

from feedback.store import Keys, Store, watched
from tests.gateway.conftest import AGENT, QUESTION, World, ground, until, world
from tests.servers import OwnPostgres

__all__ = ["ground", "world"]  # fixtures


async def test_while_the_store_is_frozen_look_ups_are_503_and_answers_and_ratings_land_once_later(
    world: World, own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "_SILENT_SECONDS", 0.5)
    store = await asyncio.to_thread(Store.open, own_postgres.url)
    world.keys = {"ann": Keys(store).create("ann", ["invoke", "rate", "review"])}
    asked: dict[str, Any] = {"model": AGENT, "messages": QUESTION}
    async with world.running(store_url=own_postgres.url):
        client = world.http()
        await client.post("/v1/chat/completions", json=asked)
        with own_postgres.frozen():
            looked_up = await asyncio.gather(*(client.get("/v1/feedback") for _ in range(30)))
            answered = await client.post("/v1/chat/completions", json=asked)
            said = {"request_id": answered.json()["id"], "name": "correct", "value": True}
            rated = await client.post("/v1/feedback", json=said)
        assert {one.status_code for one in looked_up} == {503}
        assert {one.json()["error"]["code"] for one in looked_up} == {"store_unavailable"}
        assert "timeout" in looked_up[0].text or "stopped answering" in looked_up[0].text
        assert looked_up[0].headers["retry-after"] == "5"
        assert (answered.status_code, rated.status_code) == (200, 200)
        await until(lambda: store.counts()["ratings"] == 1, 30)
    assert store.counts()["requests"] == 2
    store.close()
