"""Page numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.documents.selection import MOST_PAGES, numbers, selected
from tools.errors import ToolError


@pytest.mark.parametrize(
    ("pages", "meant"),
    [("3", [3]), ("3-5, 9", [3, 4, 5, 9]), (" 2 – 3 ,1", [2, 3, 1]), ("4,4,3-5", [4, 3, 5]), ("007", [7])],  # noqa: RUF001  # meant
)
def test_numbers_and_ranges_are_read_in_their_order_each_once(pages: str, meant: list[int]):
    assert selected(pages, 10) == meant


@pytest.mark.parametrize(
    "pages", ["", "0", "11", "5-3", "9-12", "three", "1,", "-1", "1-2-3", "1;2", "²", "9" * 50]
)
def test_what_is_no_page_is_refused_with_what_there_is(pages: str):
    with pytest.raises(ToolError, match=r"pages 1 to 10|write for example"):
        selected(pages, 10)


def test_more_pages_than_can_be_read_at_once_are_refused():
    assert len(selected(f"1-{MOST_PAGES}", 999_999)) == MOST_PAGES
    for pages in (f"1-{MOST_PAGES + 1}", "1-999999", f"1-{MOST_PAGES}, 50", "1-15, 21-30"):
        with pytest.raises(ToolError, match="at most"):
            selected(pages, 999_999)


@given(st.sets(st.integers(1, 40), min_size=1, max_size=MOST_PAGES))
def test_numbers_are_written_as_they_are_read(pages: set[int]):
    assert selected(numbers(sorted(pages)), 40) == sorted(pages)
