"""Whatever a plain model streams, and in which order, its events and its record show the same response."""

from typing import Any

import orjson
import pytest

from agents.model import ModelError
from feedback.events import ModelCall, RequestFinished, parse
from feedback.store import Key
from gateway.errors import ApiError
from gateway.openai_response import response_object
from gateway.passthrough.record import Known, encode
from gateway.passthrough.responding import ResponseCapture
from gateway.plain_responses import PlainResponsesRequest
from gateway.trace import begin
from gateway.wire import validate
from tests.gateway.conftest import sse
from tests.gateway.openapi import Published

ID = "resp_" + "ab" * 16
KEY = Key("k", "ann", "default", frozenset(), None, None)  # type: ignore[arg-type]  # dates do not matter here

SAID: dict[str, Any] = {"content": "Yes."}
REASONED: dict[str, Any] = {"reasoning": "Hm."}


def _call(index: int, arguments: str | None = None) -> dict[str, Any]:
    if arguments is not None:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}
    opening = {"index": index, "id": f"call-{index}", "type": "function", "function": {"name": "add"}}
    return {"tool_calls": [opening]}


def _chunk(number: int, delta: dict[str, Any], finish_reason: str | None, **extra: Any) -> bytes:
    token = {"token": f"t{number}", "logprob": -number / 8, "bytes": [], "top_logprobs": []}
    choice = {
        "index": 0,
        "delta": delta,
        "logprobs": {"content": [token]},
        "finish_reason": finish_reason,
        "token_ids": [number],
    }
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "base"}
    return b"data: %b\n\n" % orjson.dumps({**head, "choices": [choice], **extra})


def _stream(*deltas: dict[str, Any], finish_reason: str = "stop") -> bytes:
    first = _chunk(0, {"role": "assistant", "content": ""}, None, prompt_token_ids=[7, 8])
    last = len(deltas)
    chunks = [
        _chunk(number, delta, finish_reason if number == last else None)
        for number, delta in enumerate(deltas, 1)
    ]
    return b"".join([first, *chunks]) + b"data: [DONE]\n\n"


class _Asked:
    """A request, and what came of it."""

    def __init__(self, **fields: Any) -> None:
        body = validate({"model": "base", "input": "Hi", "stream": True, **fields}, PlainResponsesRequest)
        self.asked = body.asked(ID, None, stored=True)
        self.asked.upstream["model"] = "base"
        self.capture = ResponseCapture(self.asked, request_id=ID, model="base", policy="base@b0", body=body)

    def record(self, status: Any = "completed", error: str | None = None) -> bytes:
        known = Known(ID, "e", begin(ID, []), "base", "base@b0", KEY, self.asked, 0.0, 0)
        return encode(known, status, error, self.capture)

    def read(self, stream: bytes) -> list[dict[str, Any]]:
        shown = b"".join(self.capture.feed(stream[at : at + 100]) for at in range(0, len(stream), 100))
        self.capture.check_complete()
        return sse((shown + self.capture.end(self.record())).decode())


@pytest.mark.parametrize(
    ("deltas", "kinds"),
    [
        ((REASONED, SAID, _call(0), _call(0, "{}")), ["reasoning", "message", "function_call"]),
        ((_call(0), _call(1), _call(0, "{"), _call(1, "{}"), _call(0, "}")), ["function_call"] * 2),
        ((_call(0), _call(0, "{}"), SAID, _call(1)), ["function_call", "message", "function_call"]),
        ((_call(3), SAID, _call(1), REASONED), ["function_call", "message", "function_call", "reasoning"]),
        (({},), ["message"]),  # it had nothing to say, and said so
    ],
)
def test_items_stand_in_the_response_where_they_began(
    published: Published, deltas: tuple[dict[str, Any], ...], kinds: list[str]
) -> None:
    asked = _Asked()
    events = asked.read(_stream(*deltas))
    for event in events:
        published.check_event(event)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == kinds
    added = {event["output_index"]: event["item"] for event in events if event["type"].endswith("item.added")}
    done = {event["output_index"]: event["item"] for event in events if event["type"].endswith("item.done")}
    assert [added[index]["id"] for index in range(len(kinds))] == [item["id"] for item in output]
    assert [done[index] for index in range(len(kinds))] == output
    assert len({item["id"] for item in output}) == len(kinds)
    for index, item in enumerate(output):
        deltas_of = [
            event["delta"] for event in events if "delta" in event and event["output_index"] == index
        ]
        whole = item["arguments"] if "arguments" in item else item["content"][0]["text"]
        assert "".join(deltas_of) == whole
    record = parse(asked.record())
    assert isinstance(record, RequestFinished) and response_object(record)["output"] == output
    (call,) = record.calls
    assert isinstance(call, ModelCall) and call.prompt_token_ids == (7, 8)
    assert call.tokens == tuple(f"t{number}" for number in range(len(deltas) + 1))


def test_logprobs_are_told_only_where_it_is_known_whose_they_are(published: Published) -> None:
    include = ["message.output_text.logprobs"]
    [message] = _Asked(include=include).read(_stream(SAID))[-1]["response"]["output"]
    assert [entry["token"] for entry in message["content"][0]["logprobs"]] == ["t0", "t1"]
    _, message = _Asked(include=include).read(_stream(REASONED, SAID))[-1]["response"]["output"]
    assert message["content"][0]["logprobs"] == []


def test_of_an_answer_that_was_cut_the_last_item_is_incomplete(published: Published) -> None:
    events = _Asked().read(_stream(SAID, _call(0), _call(0, '{"a'), finish_reason="length"))
    assert events[-1]["type"] == "response.incomplete"
    published.check_event(events[-1])
    assert [item["status"] for item in events[-1]["response"]["output"]] == ["completed", "incomplete"]


def test_what_breaks_off_is_shown_as_far_as_it_came_and_as_failed(published: Published) -> None:
    asked = _Asked()
    shown = asked.capture.feed(_stream(SAID, _call(0)).partition(b"data: [DONE]")[0])
    failed = asked.capture.failed(
        ApiError(502, "the engine died", code="upstream_unavailable"),
        asked.record("failed", "upstream_unavailable: the engine died"),
    )
    events = sse((shown + failed).decode())
    for event in events:
        published.check_event(event)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    response = events[-1]["response"]
    assert (response["status"], response["error"]["message"]) == ("failed", "the engine died")
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: nonsense\n\n",
        _stream(SAID).replace(b'"model":"base"', b'"model":"other"'),
        _stream(SAID).replace(b'"delta"', b'"gamma"'),
        _stream({"tool_calls": [5]}),
        b'data: {"error": {"message": "died"}}\n\n',
    ],
)
def test_what_is_no_answer_of_this_model_is_an_error(stream: bytes) -> None:
    with pytest.raises(ModelError) as refused:
        _Asked().capture.feed(stream)
    assert refused.value.status == 502
