"""The text of a Word document (Office Open XML), opened by python-docx.

Read is what a reader of the page sees of the body and its footnotes: tables row by row, insertions as if accepted,
deletions and hidden text not at all. Headers and footers are left out, and the numbers that Word computes for lists and
headings are not in the file. Pages end where somebody set a page break or a section begins on a new page, and where
Word's own layout broke the page when it last saved the document.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import docx
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.exceptions import OpcError
from docx.oxml import parse_xml
from docx.oxml.ns import qn
from lxml import etree

from tools.parsing.errors import ParseError

_UNPACKED_BYTES = 256 * 2**20
_BREAK, _LAYOUT = (
    "\f",
    "\v",
)  # set by somebody, by Word's layout; XML admits neither in a text (XML 1.0, section 2.2)
_AS_TEXT = {qn("w:tab"): "\t", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-", qn("w:softHyphen"): "\u00ad"}
_ALTERNATIVE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # the same once more
_NOT_SEEN = {qn("w:del"), qn("w:moveFrom"), qn("w:pPr"), _ALTERNATIVE}


def text(data: bytes) -> str:
    """The whole text, with a form feed between two pages where it has page breaks. Raises `ParseError`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            if sum(part.file_size for part in parts.infolist()) > _UNPACKED_BYTES:
                raise ParseError(f"it unpacks to more than {_UNPACKED_BYTES // 2**20} MiB")
        document = docx.Document(io.BytesIO(data))
        found = "".join([*_lines(document.element.body), *_footnotes(document.part)])
    except (OpcError, KeyError, ValueError, OSError, etree.XMLSyntaxError, zipfile.BadZipFile) as error:
        raise ParseError(f"it is broken, or no Word document: {error}") from error
    if not found.strip():
        raise ParseError("it holds no text")
    # After a break that somebody set, Word notes the same break as one of its layout.
    found = re.sub(r"\f[ \t\n]*\v", _BREAK, found)
    return re.sub(r"[ \t\n]*\f[ \t\n]*", _BREAK, found.replace(_LAYOUT, _BREAK)).strip()


def _lines(block: Any) -> Iterator[str]:
    for element in block:
        if element.tag == qn("w:p"):
            yield _paragraph(element)
        elif element.tag == qn("w:tbl"):
            for row in element.iter(qn("w:tr")):
                cells = ("".join(_lines(cell)).split() for cell in row.iterchildren(qn("w:tc")))
                yield "\t".join(" ".join(cell) for cell in cells) + "\n"
            yield "\n"
        elif element.tag not in _NOT_SEEN:  # content controls, custom XML, insertions: what is in them counts
            yield from _lines(element)


def _paragraph(paragraph: Any) -> str:
    properties = paragraph.pPr
    before = after = ""
    if properties is not None:
        wanted = properties.find(qn("w:pageBreakBefore"))
        if wanted is not None and wanted.get(qn("w:val")) not in ("0", "false", "off"):
            before = _BREAK
        section = properties.find(qn("w:sectPr"))
        if section is not None:
            kind = section.find(qn("w:type"))
            after = "" if kind is not None and kind.get(qn("w:val")) == "continuous" else _BREAK
    return before + "".join(_inline(paragraph)) + "\n\n" + after


def _inline(parent: Any) -> Iterator[str]:
    for element in parent:
        tag = element.tag
        if tag == qn("w:t"):
            yield element.text or ""
        elif tag == qn("w:br"):
            yield _BREAK if element.get(qn("w:type")) == "page" else "\n"
        elif tag == qn("w:lastRenderedPageBreak"):
            yield _LAYOUT
        elif tag in _AS_TEXT:
            yield _AS_TEXT[tag]
        elif tag == qn("w:footnoteReference"):
            yield f"[{element.get(qn('w:id'))}]"
        elif tag not in _NOT_SEEN and not _is_hidden(element):
            yield from _inline(element)


def _is_hidden(run: Any) -> bool:
    if run.tag != qn("w:r") or run.rPr is None:
        return False
    vanish = run.rPr.find(qn("w:vanish"))
    return vanish is not None and vanish.get(qn("w:val")) not in ("0", "false", "off")


def _footnotes(part: Any) -> Iterator[str]:
    """After the body, under the numbers at which the body refers to them."""
    try:
        notes = parse_xml(part.part_related_by(RELATIONSHIP_TYPE.FOOTNOTES).blob)
    except KeyError:  # it has none
        return
    for note in notes.iterchildren(qn("w:footnote")):
        if note.get(qn("w:type")) is None:  # the others are the lines between text and notes
            yield f"[{note.get(qn('w:id'))}] {' '.join(''.join(_lines(note)).split())}\n"
