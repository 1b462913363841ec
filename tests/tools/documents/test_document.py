"""Pages and offsets: what is cited once can be found again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.documents.document import PAGE_END, PART_CHARACTERS, Document, Span, cleaned, parted
from tools.documents.passages import PASSAGE_CHARACTERS, passages

TEXTS = st.text(st.sampled_from("ab .\n\f\t’é𝔸"), max_size=300) | st.text(max_size=300)  # noqa: RUF001  # meant
LONG = st.lists(st.sampled_from(["word ", "x" * 400, "end.\n\n", "line\n", "é", " "]), max_size=300).map(
    "".join
)


def of(text: str) -> Document:
    return Document("a.txt", text, paged=True)


@given(TEXTS)
def test_a_page_is_what_stands_at_its_offsets(text: str):
    document = of(text)
    assert PAGE_END.join(document.page(n) for n in range(1, len(document.pages) + 1)) == text
    for number, (start, end) in enumerate(document.pages, start=1):
        assert document.page(number) == text[start:end]
        assert all(document.page_of(offset) == number for offset in range(start, end + 1))


def test_a_span_names_the_pages_that_it_touches():
    document = of("one\ftwo\fthree")
    assert document.pages_of(Span(0, 3)) == (1, 1)
    assert document.pages_of(Span(1, 5)) == (1, 2)
    assert document.pages_of(Span(4, 8)) == (2, 2)  # the form feed ends page 2
    assert document.pages_of(Span(0, 13)) == (1, 3)


@pytest.mark.parametrize("number", [0, -1, 4])
def test_there_are_no_other_pages(number: int):
    with pytest.raises(IndexError):
        of("one\ftwo\fthree").page(number)


@given(TEXTS)
def test_cleaning_leaves_each_character_where_it_was(text: str):
    clean = cleaned(text)
    assert len(clean) == len(text) - text.endswith("\f")
    kept = [(a, b) for a, b in zip(text, clean, strict=False) if a.isalnum()]
    assert all(a == b for a, b in kept)
    assert not set(clean) & {"\0", "\r", "\x1b", "\x9b", "\ud800"}


def test_a_form_feed_at_the_end_begins_no_page():
    assert len(of(cleaned("one\ftwo\f")).pages) == 2
    assert len(of(cleaned("one\ftwo\f\f")).pages) == 3


@given(LONG)
def test_parts_are_small_and_whole_and_stand_where_they_stood(text: str):
    document = of(parted(text))
    assert all(end - start <= PART_CHARACTERS for start, end in document.pages)
    assert "".join(document.text.split()) == "".join(text.split())
    if " " in text and max(map(len, text.split()), default=0) < PART_CHARACTERS // 2:
        assert len(document.text) == len(text)


def test_parts_end_with_a_paragraph_where_one_does():
    paragraph = "word " * 200 + "end.\n\n"
    document = of(parted(paragraph * 20))
    assert len(document.pages) > 5
    assert all(document.page(n).endswith("end.\n") for n in range(1, len(document.pages)))


@given(LONG | TEXTS)
def test_passages_cover_all_words_and_never_cross_a_page(text: str):
    document = of(text)
    found = passages(document)
    assert "".join("".join(text[start:end].split()) for start, end in found) == "".join(text.split())
    for span in found:
        assert 0 < span.end - span.start <= PASSAGE_CHARACTERS
        assert document.page_of(span.start) == document.page_of(span.end - 1)
        assert text[span.start : span.end].strip() == text[span.start : span.end]


def test_the_digest_names_the_text():
    assert of("a\fb").digest == Document("other", "a\fb", paged=False).digest != of("a b").digest
