"""Each rule finds what it is named after, in the company that it keeps in real texts, and leaves its look-alikes."""

import string
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedback.redaction.rules import BUILTIN, Builtin

FOUND = {
    "email": [
        "ann@example.com",
        "ann.b+c_d%e-f@mail.example.co.uk",
        "jörg@müller.de",
        "x@xn--mller-kva.xn--p1ai",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "fr14 2004 1010 0505 0001 3m02 606",
        "NO93-8601-1117-947",
        "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
    ],
    "credit_card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "340000000000009",
        "6011 0000 0000 0004",
    ],
    "us_ssn": ["123-45-6789", "123 45 6789"],
    "ip_address": [
        "192.0.2.7",
        "2001:db8::8a2e:370:7334",
        "::ffff:192.0.2.128",
        "fe80::1",
        "2001:DB8:0:0:0:0:0:1",
    ],
    "phone": [
        "+49 170 1234567",
        "+1 (555) 123-4567",
        "+44 (0)20 7946 0958",
        "0049 30/123 456",
        "+12025550123",
        "(202) 555-0123",
        "202-555-0123",
        "202.555.0123",
    ],
    "secret": [
        "fw-" + "aB3_" * 10 + "xyz",
        "sk-proj-" + "a1" * 20,
        "ghp_" + "A1b2" * 9,
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbU",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ],
}
LEFT = {
    "email": ["@ann", "ann@", "ann@localhost", "ann at example.com", "SELECT @x.y", "a @b.com"],
    "iban": [
        "DE89370400440532013001",
        "DE8937040044053201300",
        "ZZ89370400440532013000",
        "DE89370400440532013000X",
    ],
    "credit_card": [
        "4111111111111112",
        "0.4111111111111111",
        "411111111111",
        "4111111111111111a",
        "1700000000000000000",
    ],
    "us_ssn": [
        "000-12-3456",
        "666-12-3456",
        "912-12-3456",
        "123-00-4567",
        "123-45-0000",
        "123456789",
        "2123-45-6789",
    ],
    "ip_address": [
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "v1.2.3.4",
        "12:30:45",
        "std::vector",
        "id::date",
        "deadbeef",
    ],
    "phone": ["12345678", "2024-01-31", "+13.3 points", "1.234.567,89", "100-200-3000", "20240131-1234567"],
    "secret": ["sk-short", "fw-", "AKIA", "eyJ.eyJ.x", "task-" + "a" * 30],
}
SURROUNDED = ["{}", "it is {}.", "({})", '"{}"', "a: {}, b", "\n{}\n", "<{}>", "[{}]", "x={};", "ÄÖ {} 中"]


def found(name, text):
    return [text[start:end] for start, end in BUILTIN[name](text)]


def test_every_rule_that_can_be_configured_is_there_and_tried_here():
    assert set(BUILTIN) == set(get_args(Builtin)) == set(FOUND) == set(LEFT)


@pytest.mark.parametrize("around", SURROUNDED)
@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in FOUND.items() for text in texts])
def test_what_it_is_named_after_is_found_whole_whatever_stands_around_it(name, text, around):
    assert found(name, around.format(text)) == [text]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in LEFT.items() for text in texts])
def test_what_only_looks_like_it_is_left(name, text):
    assert found(name, f"see {text} there") == []


def test_two_beside_each_other_are_two():
    assert found("email", "a@b.com.c@d.org") == ["a@b.com", ".c@d.org"]
    assert found("email", "a@b.com,c@d.org;e@f.net") == ["a@b.com", "c@d.org", "e@f.net"]
    assert found("iban", "KD12 DE89 3704 0044 0532 0130 00 BIC COBADEFF GB29NWBK60161331926819") == [
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
    ]
    assert found("credit_card", "no. 123 4111 1111 1111 1111 12 5500000000000004") == [
        "4111 1111 1111 1111",
        "5500000000000004",
    ]


@example(words=["ann@example.com"] * 3, between=[":", ".", ":", ":"])
@given(
    words=st.lists(st.sampled_from(FOUND["email"]), min_size=1, max_size=4),
    between=st.lists(st.text(string.punctuation + " \n", min_size=1, max_size=3), min_size=4, max_size=4),
)
@settings(deadline=None)
def test_no_mark_between_addresses_hides_one(words, between):
    text = "".join(word + mark for word, mark in zip(words, between, strict=False))
    left, end = "", 0
    for start, after in BUILTIN["email"](text):
        left += text[end:start]
        end = after
    assert "@example.com" not in left + text[end:]
    assert not any(word in left + text[end:] for word in words)


@given(st.text(string.hexdigits + "@.:-+ ()/eyJ_\n", max_size=200), st.sampled_from(sorted(BUILTIN)))
@settings(deadline=None)
def test_spans_lie_in_the_text_and_are_not_empty(text, name):
    for start, end in BUILTIN[name](text):
        assert 0 <= start < end <= len(text)
