"""Searches in one document: what they find is there, and no query makes them fail or take long."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.documents.document import Document
from tools.documents.index import MOST_MATCHES, QUERY_CHARACTERS, Index
from tools.errors import ToolError

TEXT = (
    "ARTICLE 1 TERM\nThis Agreement begins on 1 May 2020 and ends after five years.\n\n"
    "ARTICLE 2 TERMI-\nNATION\nEither party may terminate this Agreement for convenience.\f"
    "ARTICLE 3 LAW\nThis agree-\nment is governed by the laws of the State of Ohio.\n\n"
    "ARTICLE 4 INSURANCE\nThe Supplier shall maintain liability insurance of $1,000,000."
)
CONTRACT = Index(Document("contract.txt", TEXT, paged=True))
QUERIES = st.text(min_size=1, max_size=QUERY_CHARACTERS) | st.text(
    st.sampled_from("(a|b)*+?{9}[^]\\.$ \n"), min_size=1, max_size=40
)
TEXTS = st.text(st.sampled_from("ab \n\f-“é"), max_size=400) | st.text(max_size=200)


def shown(spans: list) -> list[str]:
    return [TEXT[start:end] for start, end in spans]


def test_exact_finds_a_phrase_across_lines_hyphens_and_case_in_the_texts_order():
    assert shown(CONTRACT.exact("this agreement")) == [
        "This Agreement",
        "this Agreement",
        "This agree-\nment",
    ]
    assert shown(CONTRACT.exact("TERMINATION")) == ["TERMI-\nNATION"]
    assert CONTRACT.exact("Iowa") == CONTRACT.exact("") == CONTRACT.exact(" - ") == []


def test_regex_finds_what_is_not_empty():
    assert shown(CONTRACT.regex(r"article\s+\d")) == ["ARTICLE 1", "ARTICLE 2", "ARTICLE 3", "ARTICLE 4"]
    assert shown(CONTRACT.regex(r"\$[\d,]+")) == ["$1,000,000"]
    assert CONTRACT.regex("x*") == []


@pytest.mark.parametrize(
    "pattern", ["(", "[a", r"(a)\1", "(?=a)", "a{1001}", "((a{100}){100}){100}", "\ud800"]
)
def test_a_wrong_expression_is_told_what_is_wrong(pattern: str):
    with pytest.raises(ToolError, match="regular expression"):
        CONTRACT.regex(pattern)


def test_an_expression_that_makes_backtracking_engines_hang_is_as_quick_as_any():
    index = Index(Document("a", "a" * 100_000, paged=True))
    assert index.regex("(a*)*(a|aa)+$b") == []
    assert len(index.regex("a")) == MOST_MATCHES


def test_fuzzy_finds_what_is_spelt_alike_best_first():
    assert shown(CONTRACT.fuzzy("goverened by teh laws of", 3))[0].startswith("governed by the laws")
    assert shown(CONTRACT.fuzzy("liability insurance", 3))[0] == "liability insurance"
    assert CONTRACT.fuzzy("xylophone zebra", 3) == []


def test_fuzzy_finds_at_any_place_of_a_long_text():
    for place in (0, 1_390, 1_990, 2_000, 5_000):
        text = "lorem ipsum " * 1_000
        text = text[:place] + " indemnification clause " + text[place:]
        found = Index(Document("a", text, paged=True)).fuzzy("indemnificatoin clause", 1)
        assert [text[start:end] for start, end in found] == ["indemnification clause"]


def test_words_finds_the_passage_that_shares_most():
    long = Document(
        "a", "\n\n".join(f"{n} filler words that say little. " * 20 for n in range(20)) + TEXT, paged=True
    )
    best = Index(long).words("Which law governs it?", 2)[0]
    assert "laws of the State of Ohio" in long.text[best.start : best.end]
    assert CONTRACT.words("the of and", 5) == CONTRACT.words("xylophone", 5) == []


def test_meaning_adds_up_nearness_and_shared_words():
    document = Document("a", "cars are sold\fit is raining\fvehicles are sold", paged=True)
    index = Index(document)
    index.vectors = np.array([[1, 0], [0, 1], [0.9, 0.1]], np.float32)
    near = index.meaning("automobile", np.array([[1, 0]], np.float32), 3)
    assert [document.page_of(span.start) for span in near] == [1, 3, 2]
    both = index.meaning("vehicles", np.array([[1, 0]], np.float32), 1)
    assert [document.page_of(span.start) for span in both] == [3]


@given(TEXTS, QUERIES, st.integers(1, 20))
@settings(deadline=None)
def test_no_query_fails_and_whatever_is_found_lies_in_the_text(text: str, query: str, limit: int):
    index = Index(Document("a", text, paged=True))
    found = [index.exact(query), index.fuzzy(query, limit), index.words(query, limit)]
    assert all(len(spans) <= limit for spans in found[1:])
    with suppress(ToolError):
        found.append(index.regex(query))
    for span in (span for spans in found for span in spans):
        assert 0 <= span.start < span.end <= len(text)
