"""The official client talks to an agent by the Responses API; every answer and event is by OpenAI's own document."""

import asyncio
import sqlite3
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseFileSearchToolCall, ResponseOutputMessage

from feedback.events import ModelCall, ToolCall
from tests.gateway.agent_answer import Answer, Sql
from tests.gateway.conftest import AGENT, BASE_POLICY, TEXT, World, client_that_leaves, disk_busy, sse
from tests.gateway.fake_vllm import BASE, answer_of, logprob_of, token_of
from tests.gateway.openapi import Published

RESPONSES = "/v1/responses"
BODY: dict[str, Any] = {"model": AGENT, "input": TEXT}
ANSWER = "".join(answer_of(BASE))


async def streamed(world: World, **body: Any) -> list[dict[str, Any]]:
    response = await world.http().post(RESPONSES, json={**BODY, "stream": True, **body})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    names = [line[7:] for line in response.text.split("\n") if line.startswith("event: ")]
    events = sse(response.text)
    assert names == [event["type"] for event in events]
    return events


async def test_a_whole_response_is_what_an_openai_client_expects(live: World, published: Published) -> None:
    raw = await live.openai().responses.with_raw_response.create(
        model=AGENT, input=TEXT, temperature=0.5, max_output_tokens=20, metadata={"app": "t"}, user="u1"
    )
    published.check_answer("POST", "/responses", 200, (answer := raw.http_response.json()))
    response = raw.parse()
    assert (response.id, response.status, response.model) == (raw.headers["x-request-id"], "completed", AGENT)
    assert response.id.startswith("resp_") and raw.headers["x-policy"] == BASE_POLICY
    assert response.output_text == ANSWER
    retrieval, message = response.output
    assert isinstance(retrieval, ResponseFileSearchToolCall) and retrieval.queries == [TEXT]
    assert isinstance(message, ResponseOutputMessage) and message.status == "completed"
    assert response.usage and response.usage.output_tokens == len(answer_of(BASE))
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert (answer["temperature"], answer["max_output_tokens"], answer["metadata"]) == (0.5, 20, {"app": "t"})
    event = await live.recorded(response.id)
    call = event.calls[-1]
    assert isinstance(call, ModelCall)
    assert (call.sampling.temperature, call.sampling.max_tokens) == (0.5, 20)
    assert event.metadata == {"app": "t", "user": "u1"}
    assert event.episode_id == raw.headers["x-episode-id"]


async def test_the_events_of_a_stream_come_in_openais_order(live: World, published: Published) -> None:
    events = await streamed(live)
    for event in events:
        published.check_event(event)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(event["delta"] for event in deltas) == ANSWER
    assert len(deltas) == len(answer_of(BASE))  # as they come from the loop, not in one piece
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "file_search_call.completed",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(deltas),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    last = events[-1]["response"]
    assert last["output"] == items
    changed = {name for name, value in last.items() if events[0]["response"].get(name, "absent") != value}
    assert changed == {"status", "completed_at", "output", "usage"}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_look_up_gives_the_response_again(live: World, published: Published, stream: bool) -> None:
    extra = {"instructions": "Be quick.", "text": {"format": {"type": "json_object"}}, "metadata": {"a": "b"}}
    if stream:
        given = (await streamed(live, **extra))[-1]["response"]
    else:
        given = (await live.http().post(RESPONSES, json={**BODY, **extra})).json()
    again = await live.http("bob").get(f"{RESPONSES}/{given['id']}")  # another person of the tenant
    published.check_answer("GET", "/responses/{response_id}", 200, again.json())
    assert again.json() == given
    assert again.headers["x-policy"] == BASE_POLICY
    assert given["instructions"] == "Be quick."
    assert given["text"] == {"format": {"type": "json_object"}}
    assert (await live.openai().responses.retrieve(given["id"])).output_text == ANSWER


async def test_the_clients_helpers_work(live: World) -> None:
    client = live.openai()
    parsed = await client.responses.parse(model=AGENT, input=TEXT, text_format=Answer)
    assert parsed.output_parsed is not None and isinstance(parsed.output_parsed.root, Sql)
    async with client.responses.stream(model=AGENT, input=TEXT, text_format=Answer) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert final.output_parsed == parsed.output_parsed
    plain = await client.responses.create(model=AGENT, input=TEXT, stream=True)
    assert (
        "".join([event.delta async for event in plain if event.type == "response.output_text.delta"])
        == ANSWER
    )


async def test_the_synchronous_client_works(live: World) -> None:
    def talk() -> None:
        with OpenAI(base_url=f"{live.url}/v1", api_key=live.keys["ann"], max_retries=0) as client:
            first = client.responses.create(model=AGENT, input=TEXT)
            with client.responses.stream(model=AGENT, input="Sure?", previous_response_id=first.id) as stream:
                second = stream.get_final_response()
            assert second.previous_response_id == first.id
            assert len(client.responses.input_items.list(second.id).data) == 3
            client.responses.delete(second.id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(second.id)

    await asyncio.to_thread(talk)


async def test_a_response_is_found_while_it_waits_in_the_outbox_and_after_a_restart(world: World) -> None:
    store = sqlite3.connect(world.folder / "store.db", isolation_level=None)
    async with world.running():
        store.execute("BEGIN IMMEDIATE")  # the store takes nothing: everything stays in the outbox
        client = world.openai()
        first = await client.responses.create(model=AGENT, input=TEXT)
        assert (await client.responses.retrieve(first.id)).output_text == ANSWER
        second = await client.responses.create(model=AGENT, input="Sure?", previous_response_id=first.id)
        store.execute("ROLLBACK")
        store.close()
    async with world.running():
        again = await world.openai().responses.retrieve(second.id)
        assert (again.id, again.previous_response_id) == (second.id, first.id)
        assert again.output == second.output


async def test_a_conversation_goes_on_from_what_was_stored(live: World, published: Published) -> None:
    client = live.openai()
    first = await client.responses.create(model=AGENT, input=TEXT, instructions="Be quick.")
    await client.responses.create(model=AGENT, input=TEXT)  # another conversation
    raw = await client.responses.with_raw_response.create(
        model=AGENT, input="Sure?", previous_response_id=first.id, instructions="Be slow."
    )
    second = raw.parse()
    asked = [(message["role"], message["content"]) for message in live.vllm.requests[-1]["messages"][1:]]
    assert asked == [("system", "Be slow."), ("user", TEXT), ("assistant", ANSWER), ("user", "Sure?")]
    events = [await live.recorded(response.id) for response in (first, second)]
    assert events[0].episode_id == events[1].episode_id == raw.headers["x-episode-id"]

    third = await client.responses.with_raw_response.create(
        model=AGENT, input="And now?", previous_response_id=second.id, extra_headers={"x-episode-id": "mine"}
    )
    assert third.headers["x-episode-id"] == "mine"
    asked = [(message["role"], message["content"]) for message in live.vllm.requests[-1]["messages"][1:]]
    assert [content for _, content in asked] == [TEXT, ANSWER, "Sure?", ANSWER, "And now?"]

    path = f"{RESPONSES}/{third.parse().id}/input_items"
    page = await live.http().get(path)
    published.check_answer("GET", "/responses/{response_id}/input_items", 200, page.json())
    items = page.json()["data"]
    assert [item["content"][0]["text"] for item in items] == ["And now?", ANSWER, "Sure?", ANSWER, TEXT]
    assert items[1]["id"] == second.output[-1].id and items[3]["id"] == first.output[-1].id
    ids = [item["id"] for item in items]
    assert len(set(ids)) == 5

    listed = client.responses.input_items.list(third.parse().id, limit=2, order="asc")
    assert [item.id async for item in listed] == ids[::-1]
    tail = (
        await live.http().get(path, params={"after": ids[-2], "include[]": "file_search_call.results"})
    ).json()
    assert ([item["id"] for item in tail["data"]], tail["has_more"]) == (ids[-1:], False)
    published.check("ResponseItemList", (await live.http().get(path, params={"after": ids[-1]})).json())


async def test_only_a_response_with_an_answer_can_be_continued(live: World) -> None:
    client = live.openai()
    live.vllm.break_after = 2
    failed = (await streamed(live))[-1]["response"]["id"]
    live.vllm.break_after = None
    chat = await client.chat.completions.create(model=AGENT, messages=[{"role": "user", "content": TEXT}])
    unstored = await client.responses.create(model=AGENT, input=TEXT, store=False)
    deleted = await client.responses.create(model=AGENT, input=TEXT)
    await client.responses.delete(deleted.id)
    others = await live.openai("eve").responses.create(model=AGENT, input=TEXT)
    for bad in (failed, chat.id, unstored.id, deleted.id, others.id, "resp_" + 32 * "0", "x\n"):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=AGENT, input="Sure?", previous_response_id=bad)
        assert caught.value.param == "previous_response_id"
    assert (await client.responses.retrieve(failed)).status == "failed"


async def test_no_tenant_sees_anothers_responses(live: World) -> None:
    own = await live.openai("ann").responses.create(model=AGENT, input=TEXT)
    eve = live.http("eve")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        response = await eve.request(method, f"{RESPONSES}/{own.id}{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "response_not_found")
    assert (await live.http(None).get(f"{RESPONSES}/{own.id}")).status_code == 401
    assert (await live.http("ann").get(f"{RESPONSES}/{own.id}")).status_code == 200


async def test_a_deleted_response_stays_deleted_and_the_record_stays(
    world: World, published: Published
) -> None:
    async with world.running():
        client = world.openai()
        kept, gone = [await client.responses.create(model=AGENT, input=TEXT) for _ in range(2)]
        answer = await world.http().delete(f"{RESPONSES}/{gone.id}")
        assert answer.json() == {"id": gone.id, "object": "response", "deleted": True}
        again = await world.http().delete(f"{RESPONSES}/{gone.id}")
        published.check_answer("DELETE", "/responses/{response_id}", again.status_code, again.json())
        assert again.status_code == 404
    async with world.running():
        client = world.openai()
        assert (await client.responses.retrieve(kept.id)).id == kept.id
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(gone.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.input_items.list(gone.id)
    assert (await world.recorded(gone.id)).output == ANSWER


async def test_what_is_not_to_be_stored_cannot_be_looked_up_nor_learnt_from(live: World) -> None:
    client = live.openai()
    response = await client.responses.create(
        model=AGENT, input=TEXT, store=False, metadata={"store": "please"}
    )
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    assert (await live.recorded(response.id)).metadata["store"] == "false"
    assert response.metadata == {"store": "please"}


async def test_only_a_background_response_can_be_cancelled(live: World) -> None:
    client = live.openai()
    response = await client.responses.create(model=AGENT, input=TEXT, background=False)
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.cancel(response.id)


async def test_an_answer_that_was_cut_is_incomplete_and_says_why(live: World, published: Published) -> None:
    live.vllm.finish_reason = "length"
    response = await live.openai().responses.create(model=AGENT, input=TEXT, max_output_tokens=16)
    assert response.status == "incomplete" and response.completed_at is None
    assert response.incomplete_details and response.incomplete_details.reason == "max_output_tokens"
    message = response.output[-1]
    assert isinstance(message, ResponseOutputMessage) and message.status == "incomplete"
    events = await streamed(live)
    published.check_event(events[-1])
    assert events[-1]["type"] == "response.incomplete"
    assert events[-2]["item"]["status"] == "incomplete"
    assert (await live.openai().responses.retrieve(response.id)).status == "incomplete"


async def test_logprobs_and_what_was_found_are_given_to_who_asks_for_them(
    live: World, published: Published
) -> None:
    include = ["message.output_text.logprobs", "file_search_call.results", "reasoning.encrypted_content"]
    events = await streamed(live, include=include)
    for event in events:
        published.check_event(event)
    tokens = [token_of(BASE, position) for position in range(len(answer_of(BASE)))]
    wanted = [
        {"token": text, "logprob": logprob_of(BASE, token), "bytes": list(text.encode()), "top_logprobs": []}
        for text, token in zip(answer_of(BASE), tokens, strict=True)
    ]
    deltas = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert [logprob for [logprob] in deltas] == wanted
    found, message = events[-1]["response"]["output"]
    assert message["content"][0]["logprobs"] == wanted
    retrieval = (await live.recorded(events[-1]["response"]["id"])).calls[0]
    assert (
        isinstance(retrieval, ToolCall) and "claims(claim_id, status, amount)" in retrieval.result["schemas"]
    )
    assert [(item["filename"], item["text"]) for item in found["results"]] == [
        (kind, text) for kind, texts in retrieval.result.items() for text in texts
    ]
    path = f"{RESPONSES}/{events[-1]['response']['id']}"
    assert (await live.http().get(path, params={"include[]": include})).json() == events[-1]["response"]
    assert (await live.http().get(path, params={"include": include[:1]})).json()["output"][1] == message
    bare = (await live.http().get(path)).json()["output"]
    assert bare[0]["results"] is None and bare[1]["content"][0]["logprobs"] == []


async def test_an_answers_items_can_be_sent_back_as_input(live: World) -> None:
    client = live.openai()
    first = await client.responses.create(model=AGENT, input=TEXT, store=False)
    own: Any = [
        item.model_dump() for item in first.output
    ]  # as clients do that keep the conversation themselves
    parts: Any = [{"type": "input_text", "text": "Sure"}, {"type": "input_text", "text": "of it?"}]
    second = await client.responses.create(
        model=AGENT,
        input=[
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": TEXT},
            *own,
            {"role": "user", "content": parts},
        ],
    )
    assert [(message.role, message.content) for message in (await live.recorded(second.id)).input] == [
        ("developer", "Be kind."),
        ("user", TEXT),
        ("assistant", ANSWER),
        ("user", "Sure\nof it?"),
    ]


async def test_a_rating_refers_to_a_response_by_its_id(live: World) -> None:
    response = await live.openai().responses.create(model=AGENT, input=TEXT)
    rating = {"request_id": response.id, "value": False, "correction": {"rows": [[1]]}}
    assert (await live.http().post("/v1/feedback", json=rating)).status_code == 200


async def test_obfuscation_makes_every_delta_a_multiple_of_one_size(live: World) -> None:
    plain = await streamed(live)
    assert not any("obfuscation" in event for event in plain)
    body = {**BODY, "stream": True, "stream_options": {"include_obfuscation": True}}
    response = await live.http().post(RESPONSES, json=body)
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    padded = [line for line in lines if '"obfuscation"' in line]
    assert len(padded) == len(answer_of(BASE))
    assert len({len(line.encode()) % 64 for line in padded}) == 1


async def test_an_error_before_the_first_byte_is_an_ordinary_one(live: World, published: Published) -> None:
    live.vllm.context_tokens = 1
    for stream in (True, False):
        response = await live.http().post(RESPONSES, json={**BODY, "stream": stream})
        published.check_answer("POST", "/responses", response.status_code, response.json())
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
        stored = await live.http().get(f"{RESPONSES}/{response.headers['x-request-id']}")
        published.check("Response", stored.json())
        assert (stored.json()["status"], stored.json()["error"]["code"]) == ("failed", "invalid_prompt")


async def test_a_generation_that_breaks_ends_the_stream_with_a_failed_response(
    live: World, published: Published
) -> None:
    live.vllm.break_after = 2
    events = await streamed(live)
    for event in events:
        published.check_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]
    assert last["type"] == "response.failed" and last["response"]["error"]["code"] == "server_error"
    assert not any(event["type"] in {"response.output_text.done", "response.completed"} for event in events)
    again = await live.openai().responses.retrieve(last["response"]["id"])
    assert again.error and again.error.message == last["response"]["error"]["message"]
    stream = await live.openai().responses.create(model=AGENT, input=TEXT, stream=True)
    assert [event.type async for event in stream][-1] == "response.failed"


async def test_what_could_not_be_recorded_is_no_response(world: World, published: Published) -> None:
    async with world.running(outbox_max_bytes=32_768):
        store = sqlite3.connect(world.folder / "store.db", isolation_level=None)
        store.execute("BEGIN IMMEDIATE")
        while (response := await world.http().post(RESPONSES, json=BODY)).status_code == 200:
            pass
        assert (response.status_code, response.json()["error"]["code"]) == (503, "storage_full")
        last = (await streamed(world))[-1]
        published.check_event(last)
        assert last["type"] == "response.failed" and "outbox" in last["response"]["error"]["message"]
        assert (await world.http().get(f"{RESPONSES}/{last['response']['id']}")).status_code == 404
        store.execute("ROLLBACK")
        store.close()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_response_is_complete_only_when_it_is_on_the_disk(live: World, stream: bool) -> None:
    async with disk_busy(live, RESPONSES, {**BODY, "stream": stream}) as seen:
        assert stream == ("output_text.delta" in "".join(seen))
        assert not any(
            end in "".join(seen) for end in ("output_text.done", "content_part.done", 'completed_at":1')
        )
    assert '"status":"completed"' in "".join(seen)


async def test_a_client_that_leaves_cancels_the_generation_and_that_is_recorded(live: World) -> None:
    event = await client_that_leaves(live, RESPONSES, {**BODY, "stream": True})
    response = await live.openai().responses.retrieve(event.request_id)
    assert response.status == "cancelled"
    assert response.output_text and ANSWER.startswith(response.output_text)
