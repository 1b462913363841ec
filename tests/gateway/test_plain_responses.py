"""A plain model by the Responses API: OpenAI's client runs its own tools, and the record is that of a chat."""

import asyncio
import sqlite3
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from feedback.events import ModelCall, RequestFinished
from tests.gateway.conftest import AGENT, TEXT, World, client_that_leaves, disk_busy, sse
from tests.gateway.fake_vllm import BASE, FakeVllm, answer_of, logprob_of, prompt_of, token_of
from tests.gateway.openapi import Published

RESPONSES = "/v1/responses"
POLICY = f"{BASE}@base-b0"
ANSWER = "".join(answer_of(BASE))
TOKENS = tuple(token_of(BASE, position) for position in range(len(answer_of(BASE))))
BODY: dict[str, Any] = {"model": BASE, "input": TEXT}
TOOL: Any = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": False,
}
CALLS: tuple[dict[str, Any], ...] = tuple(
    {"id": f"call-{n}", "type": "function", "function": {"name": "add", "arguments": f'{{"a": {n}}}'}}
    for n in (1, 2)
)


class Query(BaseModel):
    """What the fake model's answer is."""

    sql: str


async def _streamed(world: World, **body: Any) -> list[dict[str, Any]]:
    response = await world.http().post(RESPONSES, json={**BODY, "stream": True, **body})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    names = [line[7:] for line in response.text.split("\n") if line.startswith("event: ")]
    events = sse(response.text)
    assert names == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    return events


async def _exact(world: World, request_id: str, text: str = ANSWER) -> tuple[RequestFinished, ModelCall]:
    """The record of a whole answer, with the server's own ids and logprobs."""
    event = await world.recorded(request_id)
    assert (event.operation, event.status, event.policy, event.agent) == (
        "responses",
        "completed",
        POLICY,
        BASE,
    )
    (call,) = event.calls
    assert isinstance(call, ModelCall) and call.policy == POLICY
    assert (call.completion_token_ids, call.text) == (TOKENS, text)
    assert call.logprobs == tuple(logprob_of(BASE, token) for token in TOKENS)
    assert call.prompt_token_ids == tuple(prompt_of(world.vllm.requests[-1]["messages"]))
    return event, call


async def test_a_whole_response_is_what_an_openai_client_expects_and_recorded_as_the_model_saw_it(
    live: World, published: Published
) -> None:
    raw = await live.openai().responses.with_raw_response.create(
        model=BASE,
        input=TEXT,
        instructions="Be quick.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=20,
        metadata={"app": "t"},
        user="u1",
        reasoning={"effort": "low"},
    )
    published.check_answer("POST", "/responses", 200, (answer := raw.http_response.json()))
    response = raw.parse()
    assert (response.id, response.status, response.model) == (raw.headers["x-request-id"], "completed", BASE)
    assert response.output_text == ANSWER and raw.headers["x-policy"] == POLICY
    assert response.usage and response.usage.output_tokens == len(TOKENS)
    assert (answer["temperature"], answer["top_p"], answer["max_output_tokens"]) == (0.5, 0.9, 20)
    assert (answer["instructions"], answer["metadata"]) == ("Be quick.", {"app": "t"})
    assert answer["reasoning"] == {"effort": "low", "summary": None}
    event, call = await _exact(live, response.id)
    assert (call.sampling.temperature, call.sampling.top_p, call.sampling.max_tokens) == (0.5, 0.9, 20)
    assert call.parameters["reasoning_effort"] == "low" and call.tokens == tuple(answer_of(BASE))
    assert [(message.role, message.text) for message in event.input] == [
        ("system", "Be quick."),
        ("user", TEXT),
    ]
    assert event.metadata == {"app": "t", "user": "u1"} and event.episode_id == raw.headers["x-episode-id"]
    sent = live.vllm.requests[-1]
    assert sent["logprobs"] is True and sent["return_token_ids"] is True and not sent.get("stream")
    default = await live.http().post(RESPONSES, json=BODY)
    assert (default.json()["temperature"], live.vllm.requests[-1]["temperature"]) == (1.0, 1.0)


async def test_the_events_of_a_stream_come_in_openais_order_and_are_recorded(
    live: World, published: Published
) -> None:
    events = await _streamed(live)
    for event in events:
        published.check_event(event)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(TOKENS),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(event.get("delta", "") for event in events) == ANSWER
    last = events[-1]["response"]
    assert last["output"] == [event["item"] for event in events if event["type"].endswith("item.done")]
    changed = {name for name, value in last.items() if events[0]["response"].get(name, "absent") != value}
    assert changed == {"status", "completed_at", "output", "usage"}
    await _exact(live, last["id"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("calls", [(), CALLS])
async def test_a_look_up_gives_the_response_again(
    live: World, published: Published, stream: bool, calls: tuple[dict[str, Any], ...]
) -> None:
    live.vllm.tool_calls = calls
    body = {"instructions": "Be quick.", "tools": [TOOL], "tool_choice": "auto", "metadata": {"a": "b"}}
    if stream:
        given = (await _streamed(live, **body))[-1]["response"]
    else:
        given = (await live.http().post(RESPONSES, json={**BODY, **body})).json()
    again = await live.http("bob").get(f"{RESPONSES}/{given['id']}")
    published.check_answer("GET", "/responses/{response_id}", 200, again.json())
    assert again.json() == given and again.headers["x-policy"] == POLICY
    assert given["tools"][0]["name"] == "add" and given["tool_choice"] == "auto"
    assert (await live.http("eve").get(f"{RESPONSES}/{given['id']}")).status_code == 404
    assert (await live.http().delete(f"{RESPONSES}/{given['id']}")).json()["deleted"] is True
    assert (await live.http().get(f"{RESPONSES}/{given['id']}")).status_code == 404
    cancelled = await live.http().post(f"{RESPONSES}/{given['id']}/cancel")
    assert cancelled.status_code == 404


@pytest.mark.parametrize("stream", [True, False])
async def test_the_client_runs_the_functions_and_the_conversation_goes_on(
    live: World, published: Published, stream: bool
) -> None:
    client = live.openai()
    live.vllm.tool_calls = CALLS
    asked: dict[str, Any] = {"tools": [TOOL], "tool_choice": {"type": "function", "name": "add"}}
    if stream:
        events = await _streamed(live, **asked, parallel_tool_calls=True)
        for one in events:
            published.check_event(one)
        ends = [one for one in events if one["type"] == "response.function_call_arguments.done"]
        assert [end["arguments"] for end in ends] == ['{"a": 1}', '{"a": 2}']
        first = await client.responses.retrieve(events[-1]["response"]["id"])
    else:
        first = await client.responses.create(model=BASE, input=TEXT, parallel_tool_calls=True, **asked)
    sent = live.vllm.requests[-1]
    function = {name: TOOL[name] for name in ("name", "description", "parameters", "strict")}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert sent["parallel_tool_calls"] is True
    calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert len(calls) == len(first.output) == 2
    assert [(call.call_id, call.name, call.arguments, call.status) for call in calls] == [
        (f"call-{n}", "add", f'{{"a": {n}}}', "completed") for n in (1, 2)
    ]
    event, call = await _exact(live, first.id, text="")
    assert call.tool_calls == CALLS and event.output is None and call.parameters["tools"] == sent["tools"]

    live.vllm.tool_calls = ()
    results: Any = [
        {"type": "function_call_output", "call_id": "call-1", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "call-2",
            "output": [{"type": "input_text", "text": "two"}],
        },
    ]
    second = await client.responses.create(
        model=BASE, input=results, tools=[TOOL], previous_response_id=first.id
    )
    assert second.output_text == ANSWER
    conversation = [
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": None, "tool_calls": [*CALLS]},
        {"role": "tool", "tool_call_id": "call-1", "content": "one"},
        {"role": "tool", "tool_call_id": "call-2", "content": "two"},
    ]
    assert live.vllm.requests[-1]["messages"] == conversation
    items = await live.http().get(f"{RESPONSES}/{second.id}/input_items", params={"order": "asc"})
    published.check_answer("GET", "/responses/{response_id}/input_items", 200, items.json())
    listed = items.json()["data"]
    kinds = ["message", "function_call", "function_call", "function_call_output", "function_call_output"]
    assert [item["type"] for item in listed] == kinds and len({item["id"] for item in listed}) == 5
    assert [item["id"] for item in listed[1:3]] == [call.id for call in calls]
    assert (await live.recorded(second.id)).episode_id == event.episode_id

    kept: Any = [{"role": "user", "content": TEXT}, *(item.model_dump() for item in first.output), *results]
    third = await client.responses.create(
        model=BASE, input=kept, store=False
    )  # as clients do that store nothing here
    assert live.vllm.requests[-1]["messages"] == conversation
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(third.id)


async def test_the_clients_helpers_work(live: World) -> None:
    client = live.openai()
    parsed = await client.responses.parse(model=BASE, input=TEXT, text_format=Query)
    assert parsed.output_parsed == Query.model_validate_json(ANSWER)
    form = live.vllm.requests[-1]["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == (
        "json_schema",
        "Query",
        True,
    )
    event = await live.recorded(parsed.id)
    assert (
        isinstance(event.calls[0], ModelCall)
        and event.calls[0].response_schema == form["json_schema"]["schema"]
    )
    async with client.responses.stream(model=BASE, input=TEXT, text_format=Query) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert final.output_parsed == parsed.output_parsed
    live.vllm.tool_calls = CALLS
    async with client.responses.stream(model=BASE, input=TEXT, tools=[TOOL]) as stream:
        snapshots = [
            event.snapshot async for event in stream if event.type == "response.function_call_arguments.delta"
        ]
        calls = (await stream.get_final_response()).output
    assert snapshots == ['{"a": 1}', '{"a": 2}']
    assert [call.arguments for call in calls if call.type == "function_call"] == snapshots


async def test_the_synchronous_client_works(live: World) -> None:
    def talk() -> None:
        with OpenAI(base_url=f"{live.url}/v1", api_key=live.keys["ann"], max_retries=0) as client:
            first = client.responses.create(model=POLICY, input=TEXT)
            with client.responses.stream(model=BASE, input="Sure?", previous_response_id=first.id) as stream:
                second = stream.get_final_response()
            assert second.previous_response_id == first.id and second.output_text == ANSWER
            assert len(client.responses.input_items.list(second.id).data) == 3
            client.responses.delete(second.id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(second.id)

    await asyncio.to_thread(talk)


async def test_agents_and_plain_models_continue_each_other_where_both_can_read_it(live: World) -> None:
    client = live.openai()
    agents = await client.responses.create(model=AGENT, input=TEXT)
    plain = await client.responses.create(model=BASE, input="Sure?", previous_response_id=agents.id)
    said = [message["content"] for message in live.vllm.requests[-1]["messages"]]
    assert said == [TEXT, agents.output_text, "Sure?"]
    again = await client.responses.create(model=AGENT, input="And?", previous_response_id=plain.id)
    assert [message.text for message in (await live.recorded(again.id)).input] == [*said, ANSWER, "And?"]
    live.vllm.tool_calls = CALLS
    calling = await client.responses.create(model=BASE, input=TEXT, tools=[TOOL])
    for model in (AGENT, BASE):  # an agent cannot read the calls; a plain model waits for their outputs
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=model, input="So?", previous_response_id=calling.id)
        assert refused.value.param == ("previous_response_id" if model == AGENT else "input")


async def test_everything_that_a_model_reads_of_a_conversation_is_put_into_its_chat(live: World) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    items: list[dict[str, Any]] = [
        {
            "role": "developer",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"role": "user", "content": [{"type": "input_text", "text": "Look."}, image]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "I see", "annotations": []}]},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Why?"},
    ]
    response = await live.http().post(RESPONSES, json={**BODY, "input": items})
    assert response.status_code == 200, response.text
    function = {"name": "add", "arguments": ""}
    assert live.vllm.requests[-1]["messages"] == [
        {"role": "developer", "content": "a\nb"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": image["image_url"], "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I see",
            "reasoning": "Hm.",
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "assistant", "content": "No.", "refusal": "No."},
        {"role": "user", "content": "Why?"},
    ]
    listed = await live.http().get(f"{RESPONSES}/{response.json()['id']}/input_items?order=asc")
    found = listed.json()["data"]
    assert [item["type"] for item in found] == [item.get("type", "message") for item in items]
    assert found[1]["content"] == [{"type": "input_text", "text": "Look."}, image]
    assert found[6]["content"] == [{"type": "refusal", "refusal": "No."}]


async def test_an_answer_that_was_cut_is_incomplete_and_says_why(live: World, published: Published) -> None:
    live.vllm.finish_reason = "length"
    response = await live.openai().responses.create(model=BASE, input=TEXT, max_output_tokens=16)
    assert response.status == "incomplete" and response.completed_at is None
    assert response.incomplete_details and response.incomplete_details.reason == "max_output_tokens"
    events = await _streamed(live)
    published.check_event(events[-1])
    assert events[-1]["type"] == "response.incomplete" and events[-2]["item"]["status"] == "incomplete"


async def test_logprobs_are_given_to_who_asks_for_them_and_obfuscation_too(
    live: World, published: Published
) -> None:
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    options = {"include_obfuscation": True}
    events = await _streamed(live, include=include, stream_options=options)
    for event in events:
        published.check_event(event)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [entry["logprob"] for delta in deltas for entry in delta["logprobs"]] == [
        logprob_of(BASE, token) for token in TOKENS
    ]
    assert all(delta["obfuscation"] for delta in deltas)
    last = events[-1]["response"]
    assert last["output"][0]["content"][0]["logprobs"] == [
        entry for delta in deltas for entry in delta["logprobs"]
    ]
    path = f"{RESPONSES}/{last['id']}"
    assert (await live.http().get(path, params={"include": include[0]})).json() == last
    assert (await live.http().get(path)).json()["output"][0]["content"][0]["logprobs"] == []


@pytest.mark.parametrize("stream", [True, False])
async def test_the_response_is_complete_only_when_it_is_on_the_disk(live: World, stream: bool) -> None:
    live.vllm.tool_calls = CALLS[:1]
    async with disk_busy(live, RESPONSES, {**BODY, "stream": stream, "tools": [TOOL]}) as seen:
        assert stream == ("function_call_arguments.delta" in "".join(seen))
        assert ".done" not in "".join(seen) and ".completed" not in "".join(seen)
    assert '"status":"completed"' in "".join(seen)


async def test_what_could_not_be_recorded_is_no_response(world: World, published: Published) -> None:
    async with world.running(outbox_max_bytes=32_768):
        store = sqlite3.connect(world.folder / "store.db", isolation_level=None)
        store.execute("BEGIN IMMEDIATE")  # the store takes nothing: everything stays in the outbox
        while (response := await world.http().post(RESPONSES, json=BODY)).status_code == 200:
            pass
        assert (response.status_code, response.json()["error"]["code"]) == (503, "storage_full")
        last = (await _streamed(world))[-1]
        published.check_event(last)
        assert last["type"] == "response.failed" and "outbox" in last["response"]["error"]["message"]
        store.execute("ROLLBACK")
        store.close()


@pytest.mark.parametrize("fault", ["error_after", "break_after"])
async def test_a_generation_that_breaks_ends_the_stream_with_a_failed_response(
    live: World, published: Published, fault: str
) -> None:
    setattr(live.vllm, fault, 3)
    events = await _streamed(live)
    for event in events:
        published.check_event(event)
    last = events[-1]
    assert last["type"] == "response.failed" and last["response"]["error"]["code"] == "server_error"
    assert not any(event["type"].endswith(".done") for event in events)
    again = await live.openai().responses.retrieve(last["response"]["id"])
    assert (again.status, again.output_text) == ("failed", "".join(answer_of(BASE)[:3]))
    assert again.error and again.error.message == last["response"]["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_byte_is_an_ordinary_one(
    live: World, published: Published, stream: bool
) -> None:
    live.vllm.context_tokens = 1
    response = await live.http().post(RESPONSES, json={**BODY, "stream": stream})
    published.check_answer("POST", "/responses", response.status_code, response.json())
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    stored = await live.http().get(f"{RESPONSES}/{response.headers['x-request-id']}")
    published.check("Response", stored.json())
    assert (stored.json()["status"], stored.json()["error"]["code"]) == ("failed", "invalid_prompt")


async def test_a_client_that_leaves_cancels_the_generation_and_that_is_recorded(live: World) -> None:
    event = await client_that_leaves(live, RESPONSES, {**BODY, "stream": True})
    response = await live.openai().responses.retrieve(event.request_id)
    assert response.status == "cancelled"
    assert response.output_text and ANSWER.startswith(response.output_text)


async def test_another_server_is_asked_when_the_first_does_not_begin(world: World) -> None:
    async with FakeVllm().served() as second, world.running(more_vllm_urls=(second.url,)):
        world.vllm.refuse = (500, "the engine died")
        for number in range(4):
            events = await _streamed(world, input=str(number))
            assert events[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize("stream", [True, False])
async def test_where_nothing_is_recorded_nothing_is_stored_and_the_response_says_so(
    world: World, stream: bool
) -> None:
    async with world.running(capture=False):
        if stream:
            response = (await _streamed(world))[-1]["response"]
        else:
            response = (await world.http().post(RESPONSES, json=BODY)).json()
        assert response["output"][0]["content"][0]["text"] == ANSWER
        assert response["store"] is False and response["usage"]["output_tokens"] == len(TOKENS)
        assert (await world.http().get(f"{RESPONSES}/{response['id']}")).status_code == 404
    async with world.store() as store:
        assert store.counts()["requests"] == 0
