"""A quotation is where it is said to be, somewhere else, or nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.documents.document import Document
from tools.documents.index import Index
from tools.documents.quotes import Found, check

CONTRACT = Document(
    "contract.pdf",
    "1. TERM. This Agree-\nment begins on the “Effective Date”.\n"
    "\f2. LAW. It is governed by the\nlaws of Ohio, notwith-\fstanding its five-year term.\n"
    "\f3. FEES. Each party's fee is $1,000. It is governed by the laws of Ohio.",
    paged=True,
)


@pytest.mark.parametrize(
    ("quote", "page"),
    [
        ("This Agreement begins on the", 1),
        ('this agreement begins on the "Effective Date".', 1),
        ("governed by the laws of Ohio", 2),
        ("laws of Ohio, notwithstanding its five year", None),
        ("laws of Ohio, notwithstanding its five-year term", 2),
        ("laws of Ohio, notwithstanding its five-year term", 3),
        ("year term", 3),
        ("each party’s fee is $1,000", 4),  # noqa: RUF001  # meant
    ],
)
def test_a_quotation_is_found_on_its_page_whatever_its_spaces_hyphens_and_quotation_marks(
    quote: str, page: int | None
):
    found = check(CONTRACT, quote, page)
    if page is None:
        assert found is None
        return
    assert found is not None and found.on_page
    assert found.page <= page <= found.last_page
    assert CONTRACT.text[found.start : found.end] == found.text
    assert check(Index(CONTRACT), quote, page) == found


def test_with_the_wrong_page_it_says_where_it_really_stands():
    found = check(CONTRACT, "governed by the laws of Ohio", 1)
    assert found is not None
    assert (found.page, found.on_page) == (2, False)
    assert check(CONTRACT, "This Agreement", 99) == Found(1, 1, 9, 25, "This Agree-\nment", on_page=False)


def test_what_stands_on_several_pages_is_found_on_the_one_that_is_claimed():
    found = check(CONTRACT, "It is governed by the laws of Ohio", 4)
    assert found is not None and found.on_page and found.page == 4


@pytest.mark.parametrize(
    "quote",
    [
        "governed by the laws of Iowa",
        "This Agreement shall begin on",
        "verned by the laws",  # not from the beginning of a word
        "governed by the law",  # not to the end of one
        "$1,00",
        "",
        " \n",
        "…",
        "“”",
        "-",
    ],
)
def test_what_does_not_stand_there_is_not_found(quote: str):
    assert check(CONTRACT, quote, 1) is None


@given(
    st.lists(st.text(st.sampled_from("abc1."), min_size=1, max_size=5), min_size=1, max_size=40), st.data()
)
def test_any_run_of_words_is_found_where_it_was_taken_from(words: list[str], data: st.DataObject):
    text = data.draw(st.sampled_from([" ", "\n", "\f"])).join(words)
    document = Document("a", text, paged=True)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    start = sum(len(word) + 1 for word in words[:first])
    quote = " ".join(words[first : last + 1])
    found = check(document, quote, document.page_of(start))
    if any(character.isalnum() for character in quote):
        assert found is not None and found.on_page
    else:
        assert found is None
