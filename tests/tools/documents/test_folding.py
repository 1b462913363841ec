"""Two spellings of the same words are equal once folded, and lead back to where they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.documents.folding import fold, folded_words

TEXTS = st.text(st.sampled_from("aBé1 -–\n\f\"'`“’.ﬁß\u00ad\u0301\u200b½"), max_size=60) | st.text(  # noqa: RUF001  # meant
    max_size=60
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Governing Law", "GOVERNING\n  law"),
        ("the end of a page", "the end\fof a page"),
        ("agreement", "agree-\nment"),
        ("third-party", "third-\nparty"),
        ("third-party", "third\u2011party"),
        ("agreement", "agree\u00ad\nment"),
        ('the "Effective Date"', "the “Effective Date”"),
        ('the "Effective Date"', "the ``Effective Date''"),
        ("Licensee's", "Licensee’s"),  # noqa: RUF001  # meant
        ("2010-2015", "2010 – 2015"),  # noqa: RUF001  # meant
        ("word -- word", "word—word"),
        ("official", "oﬃcial"),
        ("resume", "résumé"),
        ("and so on...", "and so on…"),
        ("Ｆｕｌｌ", "full"),  # noqa: RUF001  # meant
        ("a b", "a\u200b\u00a0b"),
    ],
)
def test_spellings_of_the_same_are_equal(one: str, other: str):
    assert folded_words(one) == folded_words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10-15 days", "1015 days"),
        ("10 days", "10.0 days"),
        ("no tice", "notice"),
        ("not", "nor"),
        ("-5", "+5"),
    ],
)
def test_what_says_something_else_is_not_equal(one: str, other: str):
    assert folded_words(one) != folded_words(other)


@given(TEXTS)
def test_each_folded_character_leads_back_into_the_text_in_order(text: str):
    folded = fold(text)
    assert len(folded.text) == len(folded.origins)
    assert list(folded.origins) == sorted(folded.origins)
    assert all(0 <= origin < len(text) for origin in folded.origins)


@given(TEXTS, st.data())
def test_whatever_is_cut_out_of_a_text_is_found_in_it(text: str, data: st.DataObject):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    words = folded_words(text[start:end])
    folded = fold(text)
    assert words in folded.text
    for span in folded.occurrences(words):
        assert 0 <= span.start < span.end <= len(text)
        assert folded_words(text[span.start : span.end]) == words
