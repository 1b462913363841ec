"""Reading a stream: however it is cut into pieces, the same is collected and the same is shown."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.model import ModelError
from feedback.events import ModelCall, RequestFinished, parse
from feedback.store import Key
from gateway.passthrough.capture import Capture
from gateway.passthrough.record import Known, encode
from gateway.passthrough.request import ENDPOINTS, Asked, prepare
from gateway.trace import begin

POLICY = "base@base-b0"
CHAT = ENDPOINTS["/v1/chat/completions"]
KEY = Key("k", "ann", "default", frozenset(), None, None)  # type: ignore[arg-type]  # dates do not matter here


def _asked(**fields: Any) -> Asked:
    return prepare(CHAT, {"model": "base", "messages": [{"role": "user", "content": "Hi"}], **fields})


def _capture(asked: Asked) -> Capture:
    return Capture(asked, request_id="r", model="base", policy=POLICY)


def _event(choice: dict[str, Any], **extra: Any) -> bytes:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "base"}
    return b"data: %b\n\n" % orjson.dumps({**head, "choices": [choice], **extra})


def _stream(texts: list[str], *, comments: bool = False) -> bytes:
    first = {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    events = [_event(first, prompt_token_ids=[7, 8])]
    for number, text in enumerate(texts):
        if comments:
            events.append(b": ping\n\n")
        logprobs = {"content": [{"token": text, "logprob": -number / 8, "bytes": [], "top_logprobs": []}]}
        finish = "stop" if number == len(texts) - 1 else None
        delta = {"content": text}
        events.append(
            _event(
                {
                    "index": 0,
                    "delta": delta,
                    "logprobs": logprobs,
                    "finish_reason": finish,
                    "token_ids": [number],
                }
            )
        )
    return b"".join(events) + b"data: [DONE]\n\n"


def _read(pieces: list[bytes], asked: Asked) -> tuple[Capture, bytes]:
    capture = _capture(asked)
    shown = b"".join(map(capture.feed, pieces))
    capture.check_complete()
    return capture, shown + capture.end(None).removesuffix(b"data: [DONE]\n\n")


hostile = st.text(max_size=8) | st.sampled_from(
    [
        "data: [DONE]",
        '\n\ndata: {"a":1}\n\n',
        '"},"logprobs":{"content":[]}',
        "\r\n\r\n",
        "\u2028",
        "[DONE]",
        "\\",
    ]
)


@given(
    texts=st.lists(hostile, min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 2_000), max_size=6),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_where_a_stream_is_cut_makes_no_difference_whatever_it_says(texts, cuts, data):
    asked = _asked(stream=True)
    stream = _stream(texts, comments=data.draw(st.booleans()))
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    capture, shown = _read([stream[a:b] for a, b in pairwise(ends)], asked)
    _, at_once = _read([stream], asked)
    assert shown == at_once
    chunks = [orjson.loads(event.removeprefix(b"data: ")) for event in shown.split(b"\n\n") if event]
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "".join(texts)
    known = Known("r", "e", begin("r", []), "base", POLICY, KEY, asked, 0.0, 0)
    event = parse(encode(known, "completed", None, capture))
    assert isinstance(event, RequestFinished)
    (call,) = event.calls
    assert isinstance(call, ModelCall)
    assert call.text == "".join(texts) and call.prompt_token_ids == (7, 8)
    assert call.completion_token_ids == tuple(range(len(texts)))
    assert call.logprobs == tuple(-number / 8 for number in range(len(texts)))


def test_the_chunk_that_finishes_is_held_back():
    capture = _capture(_asked(stream=True))
    shown = capture.feed(_stream(["a", "b"]))
    assert b'"content":"a"' in shown and b'"content":"b"' not in shown
    assert b'"finish_reason":"stop"' in capture.end(None)


@pytest.mark.parametrize(
    "data",
    [
        b"data: nonsense\n\n",
        b'data: {"choices": [{"index": 0}]}\n\n',
        b'data: {"choices": [{"index": 5, "delta": {}}], "model": "base", "object": "", "created": 1}\n\n',
        _stream(["a"]).replace(b'"model":"base"', b'"model":"other"'),
        b'data: {"error": {"message": "died"}}\n\n',
    ],
)
def test_what_is_no_answer_of_this_model_is_an_error(data):
    with pytest.raises(ModelError) as refused:
        _capture(_asked(stream=True)).feed(data)
    assert refused.value.status == 502


def test_an_answer_without_a_logprob_for_every_token_is_not_given():
    with pytest.raises(ModelError, match="cannot be recorded"):
        _read([_stream(["a", "b"]).replace(b'"token_ids":[1]', b'"token_ids":[1,2]')], _asked(stream=True))


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_what_is_written_is_what_readers_accept_also_when_nothing_was_generated(status):
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    asked = _asked(stop="x", n=2, response_format=schema, tools=[{"type": "function"}], metadata={"a": "b"})
    known = Known("r", "e", begin("r", []), "base", POLICY, KEY, asked, 0.0, 0)
    for capture in (None, _capture(asked)):
        event = parse(encode(known, status, "why", capture))
        assert isinstance(event, RequestFinished)
        assert (event.status, event.calls, event.metadata) == (status, (), {"a": "b"})
