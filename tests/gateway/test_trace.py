"""W3C trace context: what is continued, what is ignored, and what goes on to the model server."""

import re

import pytest

from feedback.events import span_id
from gateway.trace import Trace, begin
from tests.gateway.conftest import AGENT, QUESTION, World

TRACE, PARENT = "ab" * 16, "cd" * 8
VALID = f"00-{TRACE}-{PARENT}-01"
CHAT = "/v1/chat/completions"


def header(*values: str, name: str = "traceparent") -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for value in values]


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (VALID, 1),
        (f"00-{TRACE}-{PARENT}-00", 0),
        (f" {VALID}\t", 1),
        (f"00-{TRACE}-{PARENT}-fd", 1),  # flags that nobody knows yet are not passed on
        (f"cc-{TRACE}-{PARENT}-01", 1),  # a later version is read as far as it is known
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", 1),
    ],
)
def test_a_callers_trace_is_continued_by_a_new_span(given, flags):
    trace = begin("r1", header(given), share=1)
    assert (trace.trace_id, trace.parent_id, trace.flags) == (TRACE, PARENT, flags)
    assert trace.span_id == span_id("r1") != PARENT


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        VALID.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0x",
        f"{VALID}-more",  # version 00 has nothing more to say
        f"cc-{TRACE}-{PARENT}-01.more",
    ],
)
def test_a_malformed_traceparent_begins_a_new_trace(given):
    trace = begin("r1", [*header(given), *header("a=1", name="tracestate")], share=1)
    assert trace.parent_id is None and trace.state == ""
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-01", trace.traceparent)
    assert trace.trace_id != TRACE


def test_two_traceparents_are_none():
    assert begin("r1", header(VALID, VALID)).trace_id != TRACE


def test_the_tracestate_goes_on_with_the_trace_and_its_malformed_members_do_not():
    headers = [*header(VALID), *header("a=1,b=2", "c=3", name="tracestate")]
    assert begin("r1", headers).headers()["tracestate"] == "a=1,b=2,c=3"
    assert "tracestate" not in begin("r1", [*header(VALID), *header("=,;", name="tracestate")]).headers()


def test_the_caller_decides_about_its_trace_and_the_share_about_new_ones():
    assert not begin("r1", header(f"00-{TRACE}-{PARENT}-00"), share=1).sampled
    assert begin("r1", header(VALID), share=0).sampled
    sampled = sum(begin("r1", [], share=0.25).sampled for _ in range(2_000))
    assert 350 < sampled < 650  # seven standard deviations


def test_a_part_is_in_the_same_trace_and_has_an_id_of_its_own():
    whole = Trace(TRACE, span_id("r1"), PARENT, 1, "a=1")
    one, two = whole.child("1"), whole.child("2")
    assert (one.trace_id, one.parent_id, one.flags, one.state) == (TRACE, whole.span_id, 1, "a=1")
    assert len({whole.span_id, one.span_id, two.span_id}) == 3
    assert one == whole.child("1")


async def test_the_trace_goes_from_the_client_through_the_record_to_vllm(live: World) -> None:
    headers = {"traceparent": VALID, "tracestate": "vendor=x"}
    response = await live.http().post(CHAT, json={"model": AGENT, "messages": QUESTION}, headers=headers)
    request_id = response.json()["id"]
    own = begin(request_id, header(VALID))
    assert response.headers["traceparent"] == own.traceparent
    assert (await live.recorded(request_id)).trace_id == TRACE
    sent = live.vllm.headers[-1]
    assert sent["traceparent"].startswith(f"00-{TRACE}-") and sent["traceparent"].endswith("-01")
    assert sent["traceparent"].split("-")[2] not in (PARENT, own.span_id)  # the model call's own span
    assert sent["tracestate"] == "vendor=x"


async def test_every_answer_says_its_trace_even_a_refusal(live: World) -> None:
    body = {"model": AGENT, "messages": QUESTION}
    asked = await live.http().post(CHAT, json=body)
    refused = await live.http(None).post(CHAT, json=body)
    missing = await live.http().get("/nowhere")
    ids = {response.headers["traceparent"].split("-")[1] for response in (asked, refused, missing)}
    assert len(ids) == 3
    assert (await live.recorded(asked.json()["id"])).trace_id in ids
