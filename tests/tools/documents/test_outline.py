"""Headings by their look, and an overview that a prompt can hold."""

from tools.documents.document import Document
from tools.documents.outline import HEADINGS, headings, overview

PAGES = """SUPPLY AGREEMENT
Source: ACME, 10-K, 2019
1. Definitions ........ 2
2. Term ........ 3
\fACME INC.

ARTICLE 1
DEFINITIONS
In this Agreement, the following apply as set out in
Section 4.2. Any term means what it says.
1.1 Affiliate. An affiliate is a company.
1.2 The term of the lease ended in May.
\fACME INC.

Article II. Term
It ends.
2 Termination for Convenience
Either party may.
\fACME INC.

Exhibit A

PRICES
1,000 EUR
""".split("\f")


def of(*pages: str) -> Document:
    return Document("contract.pdf", "\f".join(pages), paged=True)


def test_numbered_named_and_capital_lines_are_headings_with_their_pages():
    assert [(heading.page, heading.text) for heading in headings(of(*PAGES))] == [
        (1, "SUPPLY AGREEMENT"),
        (1, "1. Definitions"),
        (1, "2. Term"),
        (2, "ARTICLE 1 DEFINITIONS"),
        (2, "1.1 Affiliate"),
        (3, "Article II. Term"),
        (3, "2 Termination for Convenience"),
        (4, "Exhibit A PRICES"),
    ]


def test_of_what_a_table_of_contents_says_as_well_the_last_is_kept():
    document = of("1. Definitions ..... 2\n2. Term ..... 2\n", "1. Definitions\nText.\n2. Term\nText.")
    assert [heading.page for heading in headings(document)] == [2, 2]


def test_an_overview_says_what_is_read_and_is_fenced():
    text = overview(of(*PAGES))
    assert text.startswith('<content source="contract.pdf, overview">\ncontract.pdf: 4 pages, ')
    assert "page 3: Article II. Term" in text
    assert text.endswith("</content>")
    assert "the file has none of its own" in overview(Document("a.html", "x", paged=False))


def test_an_overview_stays_short_parts_of_parts_are_left_out_first():
    many = of(
        *(
            f"{n}. Main Part\nText.\n" + "".join(f"{n}.{k} Sub Part\nText.\n" for k in range(9))
            for n in range(40)
        )
    )
    text = overview(many)
    assert text.count("\n") <= HEADINGS + 4
    assert "39. Main Part" in text and "Sub" not in text
    more = overview(of(*(f"{n}. {'ABCDEFG'[n % 7]}{'a' * (n // 7)} Part\nText." for n in range(99))))
    assert more.count("\n") <= HEADINGS + 4
    assert f"and {99 - HEADINGS} more headings, up to page 99" in more
