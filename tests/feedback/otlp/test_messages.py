"""Messages, in whichever form an instrumentation writes them."""

import json

import pytest

from feedback.events import Message
from feedback.otlp.messages import finish_reasons, messages


def _call(arguments):
    return {"id": "c1", "type": "function", "function": {"name": "query", "arguments": arguments}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("plain text", Message(role="user", content="plain text")),
        ('"quoted"', Message(role="user", content="quoted")),
        ({"role": "human", "content": "hi"}, Message(role="user", content="hi")),
        ({"role": "critic", "content": "hi"}, Message(role="user", content="hi", name="critic")),
        (
            {"role": "user", "parts": [{"type": "text", "content": "a"}, {"type": "text", "content": "b"}]},
            Message(role="user", content="a\nb"),
        ),
        (
            {"role": "user", "parts": [{"type": "text", "content": "see"}, {"type": "uri", "uri": "x.png"}]},
            Message(role="user", content=({"type": "text", "text": "see"}, {"type": "uri", "uri": "x.png"})),
        ),
        (
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c1", "name": "query", "arguments": {"a": 1}}],
            },
            Message(role="assistant", content=None, tool_calls=(_call('{"a":1}'),)),
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [_call("{}")]},
            Message(role="assistant", content=None, tool_calls=(_call("{}"),)),
        ),
        (
            {
                "role": "assistant",
                "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "42"}],
            },
            Message(role="assistant", content="42", reasoning="hm"),
        ),
        (
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": [1]}]},
            Message(role="tool", content="[1]", tool_call_id="c1"),
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
            Message(role="tool", content="done", tool_call_id="c1"),
        ),
        ([], None),
    ],
)
def test_forms(given, expected):
    wanted = () if expected is None else (expected,)
    assert messages(given) == wanted
    if not isinstance(given, str):
        assert messages(json.dumps(given)) == wanted


def test_answers_of_tools_beside_other_parts_come_first_as_messages_of_their_own():
    parts = [{"type": "tool_call_response", "id": "c1", "result": "1"}, {"type": "text", "content": "and?"}]
    assert messages([{"role": "user", "parts": parts}]) == (
        Message(role="tool", content="1", tool_call_id="c1"),
        Message(role="user", content="and?"),
    )


def test_parts_alone_are_one_message_of_the_given_role():
    parts = [{"type": "text", "content": "Be brief."}, {"type": "text", "content": "Be kind."}]
    assert messages(parts, "system") == (Message(role="system", content="Be brief.\nBe kind."),)


@pytest.mark.parametrize(
    "given", [[{"role": "user", "parts": 5}], [{"role": 5, "content": [[1]]}], [[["x"]]], 7]
)
def test_what_has_no_form_is_kept_as_text(given):
    (found,) = messages(given)
    assert found.role == "user" and found.text


def test_json_that_nests_too_deeply_stays_text_and_nul_is_replaced():
    deep = "[" * 500 + "]" * 500
    assert messages(deep) == (Message(role="user", content=deep),)
    assert messages('["a\\u0000b"]') == (Message(role="user", content="a\ufffdb"),)


def test_why_answers_ended():
    assert finish_reasons([{"finish_reason": "stop"}, {"finish_reason": None}, "x"]) == ["stop"]
