"""Responses in the background: answered at once, made without their client, looked up and cancelled from anywhere."""

import asyncio
import sqlite3
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from feedback.outbox import OutboxError
from feedback.quota import Quota
from gateway.limits.config import LimitsConfig
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World, until
from tests.gateway.fake_vllm import BASE, answer_of
from tests.gateway.openapi import Published
from tests.gateway.processes import answers, free_port, gateway

RESPONSES = "/v1/responses"
ANSWER = "".join(answer_of(BASE))
NOWHERE = "resp_" + 32 * "0"

both = pytest.mark.parametrize("model", [AGENT, BASE])


async def begun(world: World, model: str = AGENT) -> Response:
    """A response that is being made."""
    running = world.vllm.running
    response = await world.openai().responses.create(model=model, input=TEXT, background=True)
    await until(lambda: world.vllm.running > running)
    return response


async def ended(world: World, response_id: str) -> Response:
    """The response, when it is over."""
    client = world.openai()
    while (response := await client.responses.retrieve(response_id)).status == "in_progress":
        await asyncio.sleep(0.05)
    return response


def replica(world: World) -> World:
    """Another gateway that shares the store, and nothing else."""
    config = world.config.model_copy(update={"outbox_path": world.folder / "replica.db"})
    return replace(world, config=config, _clients=[])


def rows(world: World) -> list[str]:
    """What the store knows to be unfinished."""
    with sqlite3.connect(world.folder / "store.db") as connection:
        found = connection.execute("SELECT response_id FROM background_responses").fetchall()
    connection.close()
    return [name for (name,) in found]


def held_until(world: World, year: int) -> None:
    """Time passes."""
    with sqlite3.connect(world.folder / "store.db") as connection:
        connection.execute(f"UPDATE background_responses SET held_until = '{year}-01-01 00:00:00.000000'")
    connection.close()


@both
async def test_it_is_answered_at_once_and_completed_without_its_client(
    live: World, published: Published, model: str
) -> None:
    live.vllm.seconds_per_chunk = 0.1
    client = live.http()
    body = {"model": model, "input": TEXT, "background": True, "instructions": "Be quick.", "user": "u1"}
    created = await client.post(RESPONSES, json=body)
    first = created.json()
    published.check_answer("POST", "/responses", 200, first)
    assert (first["status"], first["background"], first["output"]) == ("in_progress", True, [])
    assert first["id"] == created.headers["x-request-id"]
    policy = created.headers["x-policy"]
    assert policy.startswith(f"{model}@")
    path = f"{RESPONSES}/{first['id']}"
    assert (await client.get(path)).json() == first
    await client.aclose()  # nobody waits any more

    assert (await ended(live, first["id"])).output_text == ANSWER
    again = await live.http("bob").get(path)  # another person of the tenant
    last = again.json()
    published.check_answer("GET", "/responses/{response_id}", 200, last)
    assert again.headers["x-policy"] == policy
    changed = {name for name in last if first.get(name, "absent") != last[name]}
    assert changed == {"status", "completed_at", "output", "usage"} and last["status"] == "completed"
    event = await live.recorded(first["id"])
    assert (event.status, event.output, event.metadata) == ("completed", ANSWER, {"user": "u1"})
    await until(lambda: not rows(live))  # the record says it all
    assert (await live.http().get(f"{path}/input_items")).json()["data"][0]["content"][0]["text"] == TEXT
    await live.openai().responses.create(model=model, input="Sure?", previous_response_id=first["id"])


@both
async def test_how_it_ended_is_told(live: World, published: Published, model: str) -> None:
    live.vllm.finish_reason = "length"
    cut = await live.openai().responses.create(model=model, input=TEXT, background=True)
    assert (await ended(live, cut.id)).status == "incomplete"
    live.vllm.refuse = (400, "This model's maximum context length is 5 tokens.")
    refused = await live.openai().responses.create(model=model, input=TEXT, background=True)
    failed = await ended(live, refused.id)
    assert failed.status == "failed" and failed.error and "5 tokens" in failed.error.message
    live.vllm.refuse, live.vllm.seconds_per_chunk = None, 30
    slow = await live.openai().responses.create(
        model=model, input=TEXT, background=True, extra_headers={"x-request-timeout": "0.2"}
    )
    late = await ended(live, slow.id)
    assert late.status == "failed" and late.error and "0.2 s" in late.error.message
    for response_id in (cut.id, refused.id, slow.id):
        shown = (await live.http().get(f"{RESPONSES}/{response_id}")).json()
        published.check("Response", shown)
        assert shown["background"] is True


@both
async def test_a_cancellation_stops_the_generation_and_is_recorded_and_idempotent(
    live: World, published: Published, model: str
) -> None:
    live.vllm.seconds_per_chunk = 30
    response = await begun(live, model)
    path = f"{RESPONSES}/{response.id}"
    first = await live.http("bob").post(f"{path}/cancel")
    published.check_answer("POST", "/responses/{response_id}/cancel", first.status_code, first.json())
    assert (first.json()["status"], first.json()["background"]) == ("cancelled", True)
    await until(lambda: live.vllm.aborted == 1)
    again = await live.openai().responses.cancel(response.id)
    assert again.status == "cancelled"
    assert first.json() == (await live.http().get(path)).json()
    assert (await live.recorded(response.id)).status == "cancelled"


async def test_what_is_over_is_not_cancelled_any_more(live: World) -> None:
    client = live.openai()
    over = await client.responses.create(model=AGENT, input=TEXT, background=True)
    completed = await ended(live, over.id)
    assert (await client.responses.cancel(over.id)).to_dict() == completed.to_dict()


async def test_while_it_is_made_it_can_be_neither_deleted_nor_continued_and_is_its_tenants_alone(
    live: World,
) -> None:
    live.vllm.seconds_per_chunk = 30
    response = await begun(live)
    client, path = live.http(), f"{RESPONSES}/{response.id}"
    for method, where in (("DELETE", path), ("GET", f"{path}/input_items")):
        refused = await client.request(method, where)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "response_in_progress")
    with pytest.raises(openai.BadRequestError, match="in_progress"):
        await live.openai().responses.create(model=AGENT, input="?", previous_response_id=response.id)
    eve = live.http("eve")
    for method, where in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        said = [await eve.request(method, f"{RESPONSES}/{asked}{where}") for asked in (response.id, NOWHERE)]
        assert [answer.status_code for answer in said] == [404, 404]
        assert said[0].text.replace(response.id, NOWHERE) == said[1].text
    assert (await live.openai().responses.cancel(response.id)).status == "cancelled"
    assert (await client.delete(path)).json()["deleted"] is True
    assert (await client.get(path)).status_code == 404


async def test_any_gateway_that_shares_the_store_tells_of_it_and_cancels_it(live: World) -> None:
    live.vllm.seconds_per_chunk = 30
    response = await begun(live)
    async with replica(live).running() as other:
        client = other.openai()
        assert (await client.responses.retrieve(response.id)).to_dict() == response.to_dict()
        assert (await client.responses.cancel(response.id)).status == "cancelled"
    await until(lambda: live.vllm.aborted == 1)


@both
async def test_there_is_no_moment_at_which_a_gateway_does_not_know_it(live: World, model: str) -> None:
    live.vllm.seconds_per_chunk = 0.01
    async with replica(live).running() as other:
        client = other.openai()
        for _ in range(8):
            made = await live.openai().responses.create(model=model, input=TEXT, background=True)
            seen = set()
            while (status := (await client.responses.retrieve(made.id)).status) != "completed":
                seen.add(status)
            assert seen <= {"in_progress"}
        await until(lambda: not rows(live))
        assert (await client.responses.retrieve(made.id)).status == "completed"


async def test_what_a_killed_gateway_was_making_has_failed_and_says_so(
    world: World, published: Published
) -> None:
    world.vllm.seconds_per_chunk = 30
    port = free_port()
    world.config = world.config.model_copy(update={"port": port})
    world.url = f"http://127.0.0.1:{port}"
    async with gateway(world.config, world.folder) as process:
        await answers(f"{world.url}/readyz", process)
        response = await begun(world)
        process.kill()
        await process.wait()
    async with world.running(port=0):
        client, path = world.http(), f"{RESPONSES}/{response.id}"
        held_until(world, 2099)
        assert (await client.get(path)).json()["status"] == "in_progress"  # for all that is known
        held_until(world, 2020)
        lost = (await client.get(path)).json()
        published.check("Response", lost)
        assert lost["status"] == "failed" and "Send the request again" in lost["error"]["message"]
        assert (await client.post(f"{path}/cancel")).json() == lost
        assert (await client.get(f"{path}/input_items")).status_code == 404
        assert (await client.delete(path)).status_code == 200
        assert (await client.get(path)).status_code == 404


@both
async def test_a_shutdown_finishes_it_or_ends_it_with_words(world: World, model: str) -> None:
    world.vllm.seconds_per_chunk = 0.1
    async with world.running():
        finished = await begun(world, model)
    world.vllm.seconds_per_chunk = 30
    async with world.running(drain_seconds=0.1):
        cut = await begun(world, model)
    await until(lambda: world.vllm.aborted == 1)
    async with world.running():
        assert (await ended(world, finished.id)).output_text == ANSWER
        failed = await ended(world, cut.id)
    assert failed.status == "failed" and failed.error and "shut down" in failed.error.message
    assert (await world.recorded(cut.id)).status == "cancelled"


async def _refused(world: World, **more: Any) -> openai.RateLimitError:
    with pytest.raises(openai.RateLimitError) as caught:
        await world.openai().responses.create(model=AGENT, input=TEXT, **more)
    assert float(caught.value.response.headers["retry-after"]) > 0
    return caught.value


@pytest.mark.parametrize("limit", ["max_background", "max_concurrent", "replica_limit"])
async def test_beyond_a_limit_it_is_refused_at_once_and_its_end_makes_room(world: World, limit: str) -> None:
    world.vllm.seconds_per_chunk = 30
    only_one: dict[str, Any] = {limit: 1}
    async with world.running(**only_one):
        response = await begun(world)
        assert (await _refused(world, background=True)).code == "too_many_requests"
        if limit == "max_concurrent":
            await _refused(world)
        assert rows(world) == [response.id]
        await world.openai().responses.cancel(response.id)
        world.vllm.seconds_per_chunk = 0.001

        async def room() -> bool:
            body = {"model": AGENT, "input": TEXT, "background": True}
            return (await world.http().post(RESPONSES, json=body)).status_code == 200

        await until(room)


@both
async def test_rates_are_taken_before_it_is_answered(world: World, model: str) -> None:
    limits = LimitsConfig(key=Quota(requests_per_minute=2))
    async with world.running(limits=limits):
        client, body = world.http(), {"model": model, "input": TEXT, "background": True}
        said: list[httpx.Response] = [await client.post(RESPONSES, json=body) for _ in range(3)]
        assert [response.status_code for response in said] == [200, 200, 429]
        assert [one.headers["x-ratelimit-remaining-requests"] for one in said[:2]] == ["1", "0"]
        assert said[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert (await client.get(f"{RESPONSES}/{said[2].headers['x-request-id']}")).status_code == 404
        assert (await client.post(RESPONSES, json={**body, "model": "nobody"})).status_code == 404


@both
async def test_sent_again_with_its_idempotency_key_it_is_the_same_response(live: World, model: str) -> None:
    body = {"model": model, "input": TEXT, "background": True}
    client, headers = live.http(), {"idempotency-key": "k1"}
    first, again = [await client.post(RESPONSES, json=body, headers=headers) for _ in range(2)]
    assert first.json() == again.json() and again.headers["idempotency-replayed"] == "true"
    await ended(live, first.json()["id"])
    assert len(live.vllm.requests) == 1


@both
async def test_what_the_store_cannot_tell_of_is_refused_and_ended(live: World, model: str) -> None:
    live.vllm.seconds_per_chunk = 30
    with sqlite3.connect(live.folder / "store.db") as store:
        store.execute("ALTER TABLE background_responses RENAME TO away")
    body = {"model": model, "input": TEXT, "background": True}
    refused = await live.http().post(RESPONSES, json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert (await live.recorded(refused.headers["x-request-id"])).status == "cancelled"
    await until(lambda: not live.vllm.running)
    with store:
        store.execute("ALTER TABLE away RENAME TO background_responses")
    store.close()
    live.vllm.seconds_per_chunk = 0.001
    assert (await live.http().post(RESPONSES, json=body)).status_code == 200


@both
async def test_what_could_not_be_recorded_is_lost(
    live: World, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    async def full(_event: object) -> None:
        raise OutboxError("no space left")

    assert live.gateway is not None
    for name in ("append", "append_encoded"):
        monkeypatch.setattr(live.gateway.delivery, name, full)
    background = live.gateway.background
    response = await live.openai().responses.create(model=model, input=TEXT, background=True)
    await until(lambda: not background._tasks)
    assert not background._landing  # nobody holds it any more
    lost = None
    while lost is None or lost.status != "failed":  # a hold that was being renewed may still be written
        held_until(live, 2020)
        lost = await live.openai().responses.retrieve(response.id)
    assert lost.error and "Send the request again" in lost.error.message


async def test_of_what_is_not_recorded_there_is_none(world: World, published: Published) -> None:
    async with world.running(capture=False):
        body = {"model": BASE, "input": TEXT, "background": True}
        refused = await world.http().post(RESPONSES, json=body)
        published.check_answer("POST", "/responses", refused.status_code, refused.json())
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "background")
        chat = await world.http().post("/v1/chat/completions", json={"model": BASE, "messages": QUESTION})
        assert chat.status_code == 200
