"""Whatever an agent does becomes an item, and events, that OpenAI's clients know as the server's own work."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.acting import ToolStarted
from agents.manifest import Agent
from agents.model import Delta
from feedback.events import Message, RequestFinished, ToolCall
from gateway.openai_response import response_object
from gateway.openai_responses import ResponsesRequest
from gateway.progress import Progress
from gateway.response_events import ResponseEvents
from gateway.response_items import items_of
from gateway.wire import parse
from tests.contracts.samples import model_call, request
from tests.gateway.conftest import AGENT, sse
from tests.gateway.openapi import Published

ID = "resp_" + "ab" * 16
RETRIEVAL = ToolCall(
    name="retrieve", arguments={"query": "q", "knowledge": "k1"}, result={"schemas": ["t(a)"]}
)
RUN = ToolCall(name="run_sql", arguments={"sql": "SELECT 1"}, result={"rows": [[1]]})
FAILED = ToolCall(name="run_sql", arguments={"sql": "x"}, error="no such table: x", attempts=2)
BROKEN = RETRIEVAL.model_copy(update={"result": None, "error": "no knowledge"})


def _body(**extra: Any) -> ResponsesRequest:
    return parse(json.dumps({"model": AGENT, "input": "q", **extra}).encode(), ResponsesRequest)


def _of(*calls: ToolCall, agent: Agent, **fields: Any) -> RequestFinished:
    messages, turn = _body().conversation(agent, ID, None)
    return request(ID, input=messages, turn=turn, calls=(*calls, model_call()), **fields)


@pytest.fixture
def agent(root: Path) -> Agent:
    return Agent.load(root / "agents" / "sql_analyst")


def test_every_kind_of_call_has_its_item(published: Published, agent: Agent) -> None:
    response = response_object(_of(RETRIEVAL, RUN, FAILED, BROKEN, agent=agent), ["file_search_call.results"])
    published.check("Response", response)
    found, ran, failed, broken, message = response["output"]
    assert found["results"] == [
        {"file_id": "k1:schemas", "filename": "schemas", "text": "t(a)", "attributes": {}}
    ]
    assert (ran["type"], ran["name"], ran["server_label"]) == ("mcp_call", "run_sql", AGENT)
    assert (json.loads(ran["arguments"]), json.loads(ran["output"])) == (RUN.arguments, RUN.result)
    assert (failed["status"], failed["output"]) == ("failed", None)
    assert "no such table" in failed["error"]["content"][0]["text"]
    assert broken["status"] == "failed"
    assert len({item["id"] for item in response["output"]}) == 5 and message["type"] == "message"


def test_what_a_model_said_before_it_declined_is_shown_beside_the_refusal(published: Published) -> None:
    [item] = items_of(Message(role="assistant", content="Well.", refusal="No."))
    published.check("OutputMessage", {"id": "msg_1", **item})
    assert [part.get("text") or part["refusal"] for part in item["content"]] == ["Well.", "No."]


def test_every_kind_of_call_has_its_events_and_the_same_item(published: Published, agent: Agent) -> None:
    event = _of(RETRIEVAL, RUN, FAILED, BROKEN, agent=agent)
    assert event.turn is not None
    form = ResponseEvents(ID, AGENT, event.turn, _body(stream=True))
    begun = [
        ToolStarted("c", call.name, json.dumps(call.arguments, separators=(",", ":")))
        for call in (RUN, FAILED)
    ]
    parts: list[Delta | ToolStarted | ToolCall] = [
        RETRIEVAL, begun[0], RUN, begun[1], FAILED, BROKEN, Delta("{"), Delta("}")
    ]  # fmt: skip
    progress = Progress()
    body = form.start() + b"".join(form.piece(progress.step(part)) for part in parts)
    events = sse(body.decode())
    for sent in events:
        published.check_event(sent)
    assert [sent["sequence_number"] for sent in events] == list(range(len(events)))
    done = [sent["item"] for sent in events if sent["type"] == "response.output_item.done"]
    assert done == response_object(event)["output"][:-1]
    kinds = [sent["type"].removeprefix("response.") for sent in events]
    steps = [kind.removeprefix("mcp_call.") for kind in kinds if kind.startswith("mcp_call")]
    assert steps == ["in_progress", "completed", "in_progress", "failed"]
    assert kinds.count("file_search_call.completed") == 1  # the one that failed has no such event
    assert [sent["output_index"] for sent in events if sent["type"] == "response.output_item.added"] == [
        *range(5)
    ]


@pytest.mark.parametrize(
    ("status", "error", "shown", "code"),
    [
        ("failed", "timeout: no answer within 60 s: sorry", "failed", "server_error"),
        ("failed", "context_length_exceeded: too long", "failed", "invalid_prompt"),
        ("cancelled", "the client went away", "cancelled", None),
    ],
)
def test_a_request_without_an_answer_is_a_response_that_says_so(
    published: Published, agent: Agent, status: str, error: str, shown: str, code: str | None
) -> None:
    response = response_object(_of(agent=agent, status=status, error=error, output=None))
    published.check("Response", response)
    assert (response["status"], response["completed_at"]) == (shown, None)
    assert response["error"] == (code and {"code": code, "message": error.partition(": ")[2]})
