import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback.events import (
    CLIENT_ID,
    Erased,
    ExternalCall,
    Message,
    ModelCall,
    PolicyChanged,
    Rating,
    RequestFinished,
    Sampling,
    ToolCall,
    Turn,
    episode_key,
    new_id,
    parse,
)
from tests.contracts.samples import change, model_call, rating, request

DATA = Path(__file__).parent / "data"  # each file was written once, by the version that it is named after

short = st.text(min_size=1, max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
seconds = st.floats(0, 1e6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(short, json_values, max_size=3)
tags = st.dictionaries(short, st.text(max_size=20), max_size=3)
envelope = {"time": st.datetimes(timezones=st.just(UTC)), "tenant": short}
functions = st.fixed_dictionaries({"name": short, "arguments": st.text(max_size=20)})
client_tool_calls = st.lists(
    st.fixed_dictionaries({"id": short, "type": st.just("function"), "function": functions}), max_size=2
).map(tuple)
parts = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=20)}) | objects, max_size=3
).map(tuple)
messages = st.lists(
    st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=st.text() | parts)
    | st.builds(Message, role=st.just("assistant"), content=st.none(), tool_calls=client_tool_calls)
    | st.builds(Message, role=st.just("tool"), content=st.text(), tool_call_id=short),
    max_size=3,
)


@st.composite
def model_calls(draw):
    tokens = draw(st.lists(st.tuples(st.integers(0, 200_000), numbers), max_size=5))
    return ModelCall(
        policy=draw(short),
        messages=tuple(draw(messages)),
        response_schema=draw(st.none() | objects),
        sampling=Sampling(
            seed=draw(st.none() | st.integers()), stop=tuple(draw(st.lists(short, max_size=2)))
        ),
        parameters=draw(objects),
        text=draw(st.text()),
        tool_calls=draw(client_tool_calls),
        prompt_token_ids=tuple(draw(st.lists(st.integers(0, 200_000), max_size=5))),
        completion_token_ids=tuple(token for token, _ in tokens),
        logprobs=tuple(logprob for _, logprob in tokens),
        tokens=draw(st.just(()) | st.just(tuple(str(token) for token, _ in tokens))),
        finish_reason=draw(short),
        time_to_first_token=draw(seconds),
        latency=draw(seconds),
    )


tool_calls = st.builds(ToolCall, name=short, arguments=objects, result=json_values, latency=seconds)
turns = st.builds(
    Turn,
    model=short,
    created=st.integers(0, 2**40),
    previous_response_id=st.none() | short,
    items=st.lists(short, max_size=2).map(tuple),
    parameters=objects,
)
external_calls = st.builds(
    ExternalCall,
    model=short,
    provider_model=short,
    request=objects,
    response=objects,
    finish_reason=short,
    time_to_first_token=st.none() | seconds,
    latency=seconds,
)
values = st.booleans() | numbers | st.text(max_size=20)
events = st.one_of(
    st.builds(
        RequestFinished,
        **envelope,
        origin=st.sampled_from(["gateway", "otlp"]),
        request_id=short,
        episode_id=short,
        agent=short,
        policy=short,
        caller=short,
        input=messages.map(tuple),
        output=st.none() | st.text(),
        status=st.sampled_from(["completed", "failed", "cancelled"]),
        calls=st.lists(model_calls() | tool_calls | external_calls, max_size=3).map(tuple),
        metadata=tags,
        turn=st.none() | turns,
        latency=seconds,
    ),
    st.builds(
        Rating,
        **envelope,
        rater=short,
        rater_kind=st.sampled_from(["human", "model", "code"]),
        source=short,
        request_id=short,
        call=st.none() | st.integers(0, 2**31),
        episode_id=st.none() | short,
        value=st.none() | values | st.dictionaries(short, values, min_size=1, max_size=3),
        correction=st.none() | objects | st.text(max_size=20),
        comment=st.none() | st.text(),
        tags=tags,
    ),
    st.builds(Rating, **envelope, rater=short, request_id=st.none(), episode_id=short, value=values),
    st.builds(Erased, **envelope, person=short, by=short, reason=st.text(max_size=20)),
    st.builds(Erased, **envelope, request_id=short, by=short),
    st.builds(
        PolicyChanged,
        **envelope,
        agent=short,
        policy=short,
        state=st.sampled_from(["candidate", "active", "retired"]),
        by=short,
        evidence=objects,
    ),
)


@given(event=events)
@settings(max_examples=150, deadline=None)
def test_every_event_is_read_back_as_it_was_written(event):
    assert parse(event.model_dump_json()) == event


@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        (1, ["request_finished", "rating", "policy_changed"]),
        (2, ["request_finished"]),
        (3, ["request_finished", *["rating"] * 5, "erased", "erased"]),
    ],
)
def test_events_written_by_every_version_are_read_for_ever(version, kinds):
    lines = (DATA / f"events_v{version}.jsonl").read_text("utf-8").splitlines()
    assert [parse(line).type for line in lines] == kinds
    for line in lines:
        assert _holds(parse(line).model_dump(mode="json"), json.loads(line))


def _holds(read: Any, written: Any) -> bool:
    """Whether everything that was written has been read; what was added to the vocabulary since may be there too."""
    if isinstance(written, dict):
        return all(name in read and _holds(read[name], value) for name, value in written.items())
    if isinstance(written, list):
        return len(read) == len(written) and all(map(_holds, read, written))
    return bool(read == written)


def test_tool_calls_their_results_and_parts_are_kept_as_they_were_sent():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    asked = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What"}, picture, {"type": "text", "text": "is it?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
    ]
    event = request(input=asked, calls=(model_call(tool_calls=(call,), text="", parameters={"n": 2}),))
    read = parse(event.model_dump_json())
    assert read == event and isinstance(read, RequestFinished)
    assert json.loads(event.model_dump_json())["input"] == asked
    assert [message.text for message in read.input] == ["What\nis it?", "", "2"]


def test_a_plain_message_is_written_as_version_1_wrote_it():
    assert Message(role="user", content="").model_dump() == {"role": "user", "content": ""}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused_when_the_event_is_made(number):
    with pytest.raises(ValidationError):
        rating(value=number)
    with pytest.raises(ValidationError):
        model_call(logprobs=(number, 0.0))


def test_as_many_logprobs_as_tokens_or_no_event():
    with pytest.raises(ValidationError, match="2 tokens but 1 logprobs"):
        model_call(logprobs=(-0.1,))
    with pytest.raises(ValidationError, match="2 tokens but 1 spelled"):
        model_call(tokens=("a",))


@pytest.mark.parametrize("value", [True, False, 1.0, 0.5, "true", "1"])
def test_a_true_is_not_taken_for_a_one_nor_a_word_for_either(value):
    read = Rating.model_validate_json(rating(value=value).model_dump_json()).value
    assert (type(read), read) == (type(value), value)


def test_times_are_kept_in_utc():
    assert rating(time="2026-01-01T02:00:00+02:00").time.isoformat() == "2026-01-01T00:00:00+00:00"


def test_ids_sort_by_the_time_at_which_they_were_made():
    made = [new_id() for _ in range(1_000)]
    assert made == sorted(made)


def test_what_belongs_together_has_one_key():
    assert episode_key(request()) == episode_key(rating(episode_id="e-r1")) == "e-r1"
    assert episode_key(rating()) == "r1"
    assert episode_key(rating(request_id=None, episode_id="e1")) == "e1"
    assert episode_key(change("sql-analyst@1", "candidate")) == "sql-analyst"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"request_id": None}, "neither a request nor an episode"),
        ({"request_id": None, "episode_id": "e1", "call": 0}, "a call without its request"),
        ({"call": -1}, "greater than or equal"),
        ({"rater_kind": "cat"}, "human"),
    ],
)
def test_a_rating_is_of_something(fields, said):
    with pytest.raises(ValidationError, match=said):
        rating(**fields)


def test_a_rating_without_a_value_takes_back_and_keeps_the_id_that_its_client_chose():
    assert rating(value=None).withdrawn and not rating(value=False).withdrawn
    assert rating(tags={CLIENT_ID: "s1"}).client_id == "s1"
    assert rating().client_id is None
