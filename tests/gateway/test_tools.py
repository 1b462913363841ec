"""An agent with tools, through the real gateway and the official client: each step is told in order, and recorded."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from openai.types.responses.response_output_item import McpCall

from agents.manifest import ManifestError
from deploy.errors import FlywheelError
from deploy.trying import ask
from feedback.events import ToolCall
from feedback.quota import Quota
from gateway.app import create_app
from gateway.config import TelemetryOptions
from gateway.limits.config import LimitsConfig
from gateway.sources import DatabaseSource, DocumentsOptions, McpSource
from gateway.telemetry import call_spans
from tests.gateway.conftest import AGENT, TEXT, World, sse, until
from tests.gateway.fake_vllm import BASE, Turn
from tests.gateway.openapi import Published
from tests.gateway.otlp import Receiver
from tools.documents.document import Document
from tools.documents.library import Library

ANALYST = "analyst"
ANSWER = '{"sql":"SELECT count(*) FROM claims"}'
COUNT = '{"sql": "SELECT count(*) AS n FROM claims"}'
TURNS = (
    Turn("Let me look.", (("list_tables", "{}"), ("describe_table", '{"table": "claims"}'))),
    Turn(tools=(("run_sql", '{"sql": "SELECT n FROM claimz"}'),)),
    Turn(tools=(("run_sql", COUNT),)),
    Turn(ANSWER),
)
_MANIFEST = """
name = "analyst"
description = "Answers questions about a database."
prompt = "prompt.jinja"
response_schema = '{"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]}'
[limits]
max_tokens = 64
turns = 6
[tools.sql]
[metrics.useful]
type = "boolean"
level = "call"
"""


def database(path: Path) -> DatabaseSource:
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE claims (claim_id INTEGER PRIMARY KEY, status TEXT)")
        made.executemany("INSERT INTO claims (status) VALUES (?)", [("open",), ("closed",), ("open",)])
    made.close()
    return DatabaseSource(url=f"sqlite:///{path}")


def agent_in(world: World, manifest: str = _MANIFEST) -> Path:
    folder = world.folder / "analyst"
    folder.mkdir()
    (folder / "manifest.toml").write_text(manifest)
    (folder / "prompt.jinja").write_text("Answer with SQL. Tools: {{ tools | join(', ') }}.")
    return folder


@asynccontextmanager
async def analysts(world: World, **changes: Any) -> AsyncIterator[None]:
    """A gateway with one more agent, which works on either of two databases; one of them is another tenant's."""
    ours = database(world.folder / "ours.db")
    theirs = database(world.folder / "theirs.db").model_copy(update={"tenants": ("other",)})
    agents = (*world.config.agents, agent_in(world))
    async with world.running(**{"agents": agents, "databases": {"ours": ours, "theirs": theirs}, **changes}):
        yield


@pytest.fixture
async def analyst(world: World) -> AsyncIterator[World]:
    world.vllm.turns = TURNS
    async with analysts(world):
        yield world


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().served() as running:
        yield running


def nowhere() -> DatabaseSource:
    return DatabaseSource(url="postgresql://nobody@127.0.0.1:9/none")


def asked(**more: Any) -> dict[str, Any]:
    return {"model": ANALYST, "input": TEXT, "metadata": {"database": "ours"}, **more}


async def test_a_response_holds_each_step_as_an_item_in_its_order(
    analyst: World, published: Published
) -> None:
    raw = await analyst.openai().responses.with_raw_response.create(**asked())
    published.check_answer("POST", "/responses", 200, raw.http_response.json())
    response = raw.parse()
    kinds = [item.type for item in response.output]
    assert kinds == ["file_search_call", "reasoning", *["mcp_call"] * 4, "message"]
    listed, described, failed, counted = (item for item in response.output if isinstance(item, McpCall))
    assert listed.output is not None and "claims" in listed.output
    assert (described.name, described.arguments) == ("describe_table", '{"table": "claims"}')
    assert failed.output is None and "claimz" in str(failed.error)
    assert counted.output is not None and "3" in counted.output
    assert response.output_text == ANSWER
    event = await analyst.recorded(response.id)
    assert [call.kind for call in event.calls] == [
        "tool", "model", "tool", "tool", "model", "tool", "model", "tool", "model",
    ]  # fmt: skip
    assert [call.name for call in event.calls if isinstance(call, ToolCall)][1:] == [
        "list_tables", "describe_table", "run_sql", "run_sql",
    ]  # fmt: skip


async def test_a_stream_tells_of_each_step_when_it_begins_and_when_it_ends(
    analyst: World, published: Published
) -> None:
    body = asked(stream=True)
    events = sse((await analyst.http().post("/v1/responses", json=body)).text)
    for event in events:
        published.check_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    steps = [
        (event["type"].removeprefix("response."), event["output_index"])
        for event in events
        if "mcp_call" in event["type"] or event.get("item", {}).get("type") == "mcp_call"
    ]
    begin = ["output_item.added", "mcp_call.in_progress", "mcp_call_arguments.done"]
    over, failed = ["mcp_call.completed", "output_item.done"], ["mcp_call.failed", "output_item.done"]
    assert steps == [  # 0 is the retrieval, 1 what was said; the next two run at once
        *((kind, 2) for kind in begin), *((kind, 3) for kind in begin),
        *((kind, 2) for kind in over), *((kind, 3) for kind in over),
        *((kind, 4) for kind in (*begin, *failed)),
        *((kind, 5) for kind in (*begin, *over)),
    ]  # fmt: skip
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    assert events[-1]["type"] == "response.completed"
    again = await analyst.openai().responses.retrieve(events[-1]["response"]["id"])
    assert (
        again.model_dump()["output"] == Response.model_validate(events[-1]["response"]).model_dump()["output"]
    )


async def test_the_clients_stream_helper_takes_all_events(analyst: World) -> None:
    async with analyst.openai().responses.stream(**asked()) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds.count("response.mcp_call.in_progress") == 4
    assert kinds.count("response.reasoning_text.done") == 1
    assert final.output_text == ANSWER
    said = (await analyst.openai().responses.retrieve(final.id)).model_dump()["output"]
    history = [{"role": "user", "content": TEXT}, *said, {"role": "user", "content": "Sure?"}]
    follow_up = await analyst.openai().responses.create(**asked(input=history))
    assert follow_up.output_text == ANSWER


async def test_a_chat_shows_the_answer_only_and_the_steps_on_request(
    analyst: World, published: Published
) -> None:
    chat = analyst.openai().chat.completions
    body: dict[str, Any] = {
        "model": ANALYST,
        "messages": [{"role": "user", "content": TEXT}],
        "extra_body": {"metadata": {"database": "ours"}},
    }
    plain = [chunk async for chunk in await chat.create(**body, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in plain) == ANSWER
    assert not any("flywheel" in chunk.to_dict() for chunk in plain)
    options = {"include_steps": True}
    chunks = [chunk async for chunk in await chat.create(**body, stream=True, stream_options=options)]  # type: ignore[call-overload]  # OpenAI has no steps
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    steps = [chunk.to_dict()["flywheel"]["step"] for chunk in chunks if "flywheel" in chunk.to_dict()]
    assert [(step["call"], step["name"], step["status"]) for step in steps] == [
        (0, "retrieve", "completed"),
        (2, "list_tables", "in_progress"), (3, "describe_table", "in_progress"),
        (2, "list_tables", "completed"), (3, "describe_table", "completed"),
        (5, "run_sql", "in_progress"), (5, "run_sql", "failed"),
        (7, "run_sql", "in_progress"), (7, "run_sql", "completed"),
    ]  # fmt: skip
    whole = await chat.create(**body)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (ANSWER, "stop")
    rated = {"request_id": whole.id, "call": 5, "name": "useful", "value": False}
    assert (await analyst.http().post("/v1/feedback", json=rated)).status_code == 200
    call = (await analyst.recorded(whole.id)).calls[5]
    assert isinstance(call, ToolCall) and call.error is not None


@pytest.mark.parametrize(
    ("who", "metadata", "names"),
    [
        ("ann", {}, "ours"),
        ("ann", {"database": "payroll"}, "ours"),
        ("ann", {"database": "theirs"}, "ours"),  # it exists, for others
        ("eve", {"database": "x"}, "ours, theirs"),
    ],
)
async def test_a_database_that_is_not_there_for_the_caller_is_refused_by_what_is(
    analyst: World, who: str, metadata: dict[str, str], names: str
) -> None:
    body = {"model": ANALYST, "metadata": metadata}
    for path, question in (
        ("/v1/responses", {"input": TEXT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}),
    ):
        answer = await analyst.http(who).post(path, json={**body, **question})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "metadata.database")
        assert error["message"].endswith(f"there are: {names}.")
    assert not analyst.vllm.requests


async def test_a_tenants_database_answers_its_own_requests(analyst: World) -> None:
    response = await analyst.openai("eve").responses.create(**asked(metadata={"database": "theirs"}))
    assert response.output_text == ANSWER


async def test_each_call_is_a_span_that_can_be_rated(world: World, receiver: Receiver) -> None:
    world.vllm.turns = TURNS
    async with analysts(world, telemetry=TelemetryOptions(otlp_endpoint=receiver.url, content=True)):
        response = await world.openai().responses.create(**asked())
        event = await world.recorded(response.id)
    parts = [span for span in receiver.spans if span.parent_id == event.span_id]
    in_order = sorted(parts, key=lambda span: span.start)
    assert [span.span_id for span in in_order] == call_spans(event)
    assert [span.name for span in in_order if span.name.startswith("execute_tool")] == [
        "execute_tool list_tables", "execute_tool describe_table", "execute_tool run_sql", "execute_tool run_sql",
    ]  # fmt: skip
    assert [span.name for span in in_order].count(f"chat {BASE}") == 4
    asked_for = json.loads(in_order[1].attributes["gen_ai.output.messages"])[0]["parts"]
    assert [part["type"] for part in asked_for] == ["text", "tool_call", "tool_call"]
    read = json.loads(in_order[4].attributes["gen_ai.input.messages"])[-1]
    assert (read["role"], read["parts"][0]["type"]) == ("tool", "tool_call_response")
    served = [headers["traceparent"].split("-")[2] for headers in world.vllm.headers]
    assert served == [span.span_id for span in in_order if span.name.startswith("chat")]


async def test_a_cancelled_response_stops_the_tool_that_runs_and_says_so(world: World) -> None:
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e12) SELECT max(i) FROM n"
    )
    world.vllm.turns = (Turn("Wait.", (("run_sql", json.dumps({"sql": slow})),)),)
    async with analysts(world):
        client = world.openai()
        response = await client.responses.create(**asked(background=True))
        await until(lambda: world.vllm.requests and not world.vllm.running)
        await asyncio.sleep(0.2)  # the tool has been called
        cancelled = await client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    *_, said, stopped = cancelled.output
    assert said.type == "reasoning" and isinstance(stopped, McpCall)
    assert stopped.status == "failed" and "cancelled" in str(stopped.error)
    event = await world.recorded(response.id)
    call = event.calls[-1]
    assert isinstance(call, ToolCall) and call.arguments == {"sql": slow} and call.latency < 10


async def test_an_operator_can_have_an_agent_answer_without_its_tools(world: World) -> None:
    async with analysts(world, turns={ANALYST: 1}):
        response = await world.openai().responses.create(model=ANALYST, input=TEXT)
    assert [item.type for item in response.output] == ["file_search_call", "message"]
    assert "tools" not in world.vllm.requests[0]


async def test_tokens_that_all_turns_may_take_count_against_the_limits(world: World) -> None:
    rates = LimitsConfig(key=Quota(tokens_per_minute=300))  # 6 turns of 64
    async with analysts(world, limits=rates):
        with pytest.raises(openai.RateLimitError):
            await world.openai().responses.create(**asked())


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ('[tools.sql]\nsource = "our"', "manifest.toml:10: tools.sql.source: there is no [databases.our]"),
        (
            '[tools.sql]\noffer = ["run"]',
            "manifest.toml:10: tools.sql.offer: there is no tool run: did you mean run_sql?",
        ),
        ('[tools.mcp.crm]\noffer = ["find"]', "manifest.toml:9: tools.mcp.crm: there is no [mcp.crm]"),
    ],
)
async def test_a_gateway_does_not_start_with_tools_that_are_not_there(
    world: World, manifest: str, told: str
) -> None:
    folder = agent_in(world, _MANIFEST.replace("[tools.sql]", manifest))
    with pytest.raises(ManifestError) as caught:
        create_app(world.config.model_copy(update={"agents": (folder,), "databases": {"ours": nowhere()}}))
    assert told in str(caught.value)


async def test_a_source_that_is_away_costs_the_requests_that_need_it_and_no_others(world: World) -> None:
    async with analysts(world, databases={"ours": nowhere()}):
        with pytest.raises(openai.InternalServerError) as caught:
            await world.openai().responses.create(**asked())
        assert caught.value.status_code == 503 and "cannot work now" in caught.value.message
        assert (await world.openai().responses.create(model=AGENT, input=TEXT)).status == "completed"


async def test_whoever_tries_an_agent_sees_its_steps(
    analyst: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(ask, analyst.url, analyst.keys["ann"], ANALYST, TEXT, {"database": "ours"})
    shown = capsys.readouterr().out
    for said in (
        "Let me look.",
        "→ run_sql",
        "✗ run_sql: there is no table claimz",
        "← run_sql: 1 row",
        ANSWER,
    ):
        assert said in shown
    with pytest.raises(FlywheelError, match=r"there are: ours\.$"):
        await asyncio.to_thread(ask, analyst.url, analyst.keys["ann"], ANALYST, TEXT, {})


async def test_a_tenant_reads_its_own_documents(world: World) -> None:
    library = Library(world.folder / "documents")
    library.add(Document("lease", "The rent is 900.\fIt ends in May.", paged=True), "default")
    library.add(Document("theirs", "Secret.", paged=True), "other")
    manifest = _MANIFEST.replace("[tools.sql]", '[tools.documents]\noffer = ["select_pages"]')
    world.vllm.turns = (Turn(tools=(("select_pages", '{"pages": "2"}'),)), Turn(ANSWER))
    options = DocumentsOptions(folder=library.folder)
    async with world.running(agents=(agent_in(world, manifest),), documents=options):
        client = world.openai()
        response = await client.responses.create(**asked(metadata={"document": "lease"}))
        read = response.output[1]
        assert isinstance(read, McpCall) and "It ends in May." in str(read.output)
        assert len(world.vllm.requests[0]["tools"]) == 1
        with pytest.raises(openai.BadRequestError, match="there are: lease"):
            await client.responses.create(**asked(metadata={"document": "theirs"}))


async def test_a_quotation_that_the_contract_does_not_have_is_never_shown(world: World) -> None:
    library = Library(world.folder / "documents")
    library.add(Document("lease", "The rent is 900.\fIt ends in May.", paged=True), "default")
    folder = Path(__file__).parents[2] / "agents" / "contract_reviewer"
    read = Turn(tools=(("select_pages", '{"pages": "1"}'),))
    false, true = (_cited("The rent is 800."), _cited("The rent is 900."))
    async with world.running(agents=(folder,), documents=DocumentsOptions(folder=library.folder)):
        ask_for = world.openai().chat.completions.create
        messages: Any = [{"role": "user", "content": "What is the rent?"}]
        about = {"model": "contract-reviewer", "messages": messages, "metadata": {"document": "lease"}}
        world.vllm.turns = (read, Turn(false), Turn(true))
        corrected = await ask_for(**about)
        assert corrected.choices[0].message.content == true
        assert (
            '"The rent is 800." does not stand in the document'
            in world.vllm.requests[2]["messages"][-1]["content"]
        )
        world.vllm.turns, world.vllm.last = (read, *[Turn(false)] * 3), false
        with pytest.raises(openai.InternalServerError) as caught:
            await ask_for(**about)
        assert (caught.value.status_code, caught.value.code) == (502, "unverified_answer")
        streamed = await world.http().post("/v1/chat/completions", json={**about, "stream": True})
        assert (streamed.status_code, streamed.json()["error"]["code"]) == (502, "unverified_answer")


def _cited(quote: str) -> str:
    return json.dumps({"answer": "It is said.", "quotes": [{"page": 1, "quote": quote}]})


async def test_an_mcp_server_is_used_by_the_tenants_that_may(world: World) -> None:
    server = McpSource(command=(sys.executable, "-m", "tests.tools.mcp.crm"), tenants=("default",))
    manifest = _MANIFEST.replace("[tools.sql]", '[tools.mcp.crm]\noffer = ["find_customer"]')
    world.vllm.turns = (Turn(tools=(("crm__find_customer", '{"name": "Ann"}'),)), Turn(ANSWER))
    async with world.running(agents=(agent_in(world, manifest),), mcp={"crm": server}):
        response = await world.openai().responses.create(model=ANALYST, input=TEXT)
        assert [item.type for item in response.output] == ["file_search_call", "mcp_call", "message"]
        with pytest.raises(openai.BadRequestError, match="not open to your tenant"):
            await world.openai("eve").responses.create(model=ANALYST, input=TEXT)
