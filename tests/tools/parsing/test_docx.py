"""Word documents as a reader of the page sees them."""

import docx
from docx.enum.section import WD_SECTION
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from tests.tools.documents.files import saved, word
from tools.parsing.docx import text


def with_paragraph(inner: str) -> bytes:
    """A document with one paragraph of this XML."""
    document = docx.Document()
    document.element.body.insert(0, parse_xml(f"<w:p {nsdecls('w')}>{inner}</w:p>"))
    return saved(document)


def test_tables_are_read_row_by_row_between_the_paragraphs():
    document = docx.Document()
    document.add_paragraph("before")
    table = document.add_table(2, 2)
    for place, words in (((0, 0), "a"), ((0, 1), "b\nc"), ((1, 1), "d")):
        table.cell(*place).text = words
    document.add_paragraph("after")
    assert text(saved(document)).split("\n") == ["before", "", "a\tb c", "\td", "", "after"]


def test_set_breaks_sections_and_words_own_layout_end_pages_each_once():
    assert text(word("a\fb", "c")) == "a\fb\n\nc"
    document = docx.Document()
    document.add_paragraph("a")
    document.add_section(WD_SECTION.NEW_PAGE)
    document.add_paragraph("b")
    document.add_section(WD_SECTION.CONTINUOUS)
    document.add_paragraph("c").paragraph_format.page_break_before = True
    assert [page.split() for page in text(saved(document)).split("\f")] == [["a"], ["b"], ["c"]]
    layout = '<w:r><w:t>a</w:t><w:br w:type="page"/></w:r><w:r><w:lastRenderedPageBreak/><w:t>b</w:t></w:r>'
    assert text(with_paragraph(layout)) == "a\fb"
    assert text(with_paragraph(layout.replace('<w:br w:type="page"/>', ""))) == "a\fb"


def test_insertions_count_deletions_and_hidden_text_do_not():
    seen = text(
        with_paragraph(
            "<w:r><w:t>a</w:t></w:r><w:ins><w:r><w:t>b</w:t></w:r></w:ins>"
            "<w:del><w:r><w:delText>x</w:delText></w:r></w:del>"
            "<w:r><w:rPr><w:vanish/></w:rPr><w:t>x</w:t></w:r>"
            '<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>c</w:t></w:r>'
            "<w:r><w:t>d</w:t><w:tab/><w:noBreakHyphen/></w:r>"
        )
    )
    assert seen == "abcd\t-"
