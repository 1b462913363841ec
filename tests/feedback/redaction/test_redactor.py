"""Nothing that a rule finds is left in an event, in whatever part of it, and it is an event still."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback.events import Erased, ExternalCall, Message, RequestFinished, Sampling, ToolCall, Turn, parse
from feedback.redaction import RedactionOptions, Redactor
from tests.contracts.samples import change, model_call, rating, request
from tests.feedback.test_events import events

ANN = "ann@example.com"
CARD = 4111111111111111
EMAILS = Redactor(RedactionOptions(rules=("email",)))
EVERYTHING = Redactor(
    RedactionOptions(rules=("secret", "email", "iban", "credit_card", "us_ssn", "ip_address", "phone"))
)


def redacted(event, redactor=EMAILS):
    return parse(redactor.event(event.model_dump_json().encode()))


def full_of(text):
    """A request with the text in every place where people, models, tools and providers write."""
    said = Message(role="user", content=f"I am {text}")
    parts = Message(role="user", content=({"type": "text", "text": text},), name=text)
    called = Message(
        role="assistant",
        content=None,
        refusal=text,
        reasoning=text,
        tool_calls=({"id": "c1", "function": {"name": "f", "arguments": json.dumps({"to": text})}},),
    )
    function = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": f'{{"to": "{text}"}}'}}
    return request(
        input=(said, parts, called),
        output=f"as {text} said",
        error=text,
        metadata={"user": text, text: "x"},
        turn=Turn(model="m", created=1, items=("i1",), parameters={"metadata": {"who": text}}),
        calls=(
            model_call(
                messages=(said, called),
                text=text,
                reasoning=text,
                tool_calls=(function,),
                tokens=(text, "x"),
                sampling=Sampling(stop=(text,)),
                response_schema={"enum": [text]},
                parameters={"tools": [{"description": text}]},
            ),
            ToolCall(name="search", arguments={"query": text}, result=[{text: [text]}], error=text),
            ExternalCall(
                model="gpt",
                provider_model="gpt-1",
                request={"messages": [{"content": text}]},
                response={"choices": [{"message": {"content": text}}]},
                finish_reason="stop",
                latency=1,
            ),
        ),
    )


def test_it_is_replaced_in_every_text_of_a_request_which_says_so():
    event = redacted(full_of(ANN))
    assert isinstance(event, RequestFinished)
    assert ANN not in event.model_dump_json()
    assert (
        event.model_dump_json().count("[EMAIL]") == full_of(ANN).model_dump_json().count(ANN) - 1
    )  # but its token
    assert event.redacted == ("email",)


def test_it_is_replaced_in_every_text_of_a_rating_which_says_so():
    event = rating(
        correction={"sql": f"SELECT '{ANN}'", "rows": [[ANN, 1]]},
        comment=f"ask {ANN}",
        tags={"by": ANN},
        value=ANN,
    )
    kept = redacted(event)
    assert ANN not in kept.model_dump_json()
    assert kept.redacted == ("email",)
    assert kept.correction == {"sql": "SELECT '[EMAIL]'", "rows": [["[EMAIL]", 1]]}
    assert redacted(rating(correction=f"not {ANN}")).correction == "not [EMAIL]"


def test_who_it_was_stays_for_erasure_finds_it_by_that():
    asked = redacted(request(caller=ANN, tenant="default", output=ANN))
    assert (asked.caller, asked.output) == (ANN, "[EMAIL]")
    assert redacted(rating(rater=ANN, comment=ANN)).rater == ANN


def test_what_operators_say_stays():
    for event in (Erased(person=ANN, by="ops", reason=f"{ANN} asked"), change("a@1", "active", reason=ANN)):
        assert redacted(event) == event


def test_a_call_in_which_something_was_replaced_keeps_no_tokens_and_others_keep_theirs():
    asked = request(calls=(model_call(text=ANN), model_call(text="nothing", tokens=("a", "b"))))
    first, second = redacted(asked).calls
    assert (first.prompt_token_ids, first.completion_token_ids, first.logprobs, first.tokens) == (
        (),
        (),
        (),
        (),
    )
    assert second == asked.calls[1]


@pytest.mark.parametrize("where", [{"output": ANN}, {"input": (Message(role="user", content=ANN),)}])
def test_what_the_prompt_or_the_answer_said_is_not_left_in_the_tokens_of_any_call(where):
    asked = request(**{"calls": (model_call(), model_call(messages=())), **where})
    assert [call.prompt_token_ids for call in redacted(asked).calls] == [(), ()]


def test_a_prompt_of_token_ids_cannot_be_read_and_is_not_kept():
    asked = request(operation="text_completion", input=(), calls=(model_call(messages=()),))
    kept = redacted(asked)
    assert kept.calls[0].prompt_token_ids == ()
    assert kept.redacted == ("tokens",)
    written = request(operation="text_completion", calls=(model_call(messages=()), model_call(messages=())))
    assert redacted(written) == written


def test_what_holds_nothing_is_the_same_to_the_byte():
    body = request().model_dump_json().encode()
    assert EVERYTHING.event(body) is body


def test_json_in_a_text_is_json_still_and_is_read_as_such():
    answer = json.dumps({"sql": f"SELECT 1\n{ANN}", "card": CARD, "escaped": "\u00e4"})
    kept = redacted(request(output=answer), EVERYTHING)
    assert json.loads(kept.output) == {"sql": "SELECT 1\n[EMAIL]", "card": "[CREDIT_CARD]", "escaped": "ä"}
    escaped = '{"to": "ann\\u0040example.com"}'
    assert json.loads(redacted(request(output=escaped)).output) == {"to": "[EMAIL]"}
    assert redacted(request(output=f'{{"cut": "{ANN} and')).output == '{"cut": "[EMAIL] and'
    spaced = '{ "a" :  1.50 }'
    assert redacted(request(output=spaced)).output == spaced


def test_a_number_can_be_a_cards():
    call = ToolCall(name="rows", arguments={}, result=[[CARD, 12, CARD + 1, True, 1.5]])
    assert redacted(request(calls=(call,)), EVERYTHING).calls[0].result == [
        ["[CREDIT_CARD]", 12, CARD + 1, True, 1.5]
    ]


def test_names_that_become_alike_stay_apart():
    call = ToolCall(name="rows", arguments={"a@b.com": 1, "c@d.org": 2})
    assert redacted(request(calls=(call,))).calls[0].arguments == {"[EMAIL]": 1, "[EMAIL] 2": 2}


def test_a_placeholder_never_makes_a_rating_too_long_to_be_read():
    text = "a@b.io " * 2857
    assert len(redacted(rating(comment=text, correction=text)).comment) == 20_000


def test_each_tenant_has_its_own_rules_and_the_others_those_of_all():
    options = RedactionOptions(
        rules=("email",), tenants={"free": {"rules": ()}, "own": {"patterns": {"staff": r"\bE\d{4}\b"}}}
    )
    redactor = Redactor(options)
    said = f"{ANN} E1234"
    kept = {
        name: redacted(request(tenant=name, output=said), redactor).output for name in ("x", "free", "own")
    }
    assert kept == {"x": "[EMAIL] E1234", "free": said, "own": f"{ANN} [STAFF]"}
    assert redactor.on and not Redactor(RedactionOptions(tenants={"a": {}})).on


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing"),
        (r"(a)\1", "invalid escape"),
        ("a*", "empty text"),
        ("(?=a)b", "invalid perl operator"),
    ],
)
def test_an_expression_that_cannot_be_followed_is_refused_by_name(pattern, reason):
    with pytest.raises(ValidationError, match=f"patterns.mine: .*{reason}"):
        RedactionOptions(patterns={"mine": pattern})


def test_a_name_of_flywheels_own_cannot_be_taken():
    with pytest.raises(ValidationError, match="choose another"):
        RedactionOptions(patterns={"email": "x"})


def test_without_the_engine_an_expression_is_refused_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    with pytest.raises(ValidationError, match=r"flywheel\[redaction\]"):
        RedactionOptions(patterns={"mine": "x"})


def test_an_expression_that_takes_others_exponential_time_takes_none():
    redactor = Redactor(RedactionOptions(patterns={"slow": r"(a+)+b"}))
    assert redacted(request(output="a" * 100_000), redactor).output == "a" * 100_000


@given(event=events)
@settings(max_examples=100, deadline=None)
def test_every_event_is_one_still_and_as_it_was_where_nothing_was_found(event):
    kept = redacted(event, EVERYTHING)
    assert kept.event_id == event.event_id
    if not getattr(kept, "redacted", ()):
        assert kept == event


@given(before=st.text(max_size=30), after=st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_whatever_is_written_around_an_address_it_is_gone(before, after):
    text = f"{before} {ANN} {after}"
    assert ANN not in redacted(full_of(text)).model_dump_json()
