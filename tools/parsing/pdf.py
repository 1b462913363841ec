"""The text layer of a PDF, page by page, by PDFium (the PDF engine of Chromium)."""

import pypdfium2
from pypdfium2 import PdfiumError

from tools.parsing.errors import ParseError

# PDFium's marks for a hyphen at the end of a line, after which the word goes on.
_LINE_END_HYPHENS = str.maketrans({"\x02": "-\n", "\ufffe": "-\n"})


def text(data: bytes, *, most_pages: int) -> str:
    """All pages, with a form feed between two. A page that is only an image is empty. Raises `ParseError`."""
    try:
        document = pypdfium2.PdfDocument(data)
    except PdfiumError as error:
        if "password" in str(error).lower():
            raise ParseError("it is encrypted: save it without its password first") from error
        raise ParseError(f"it is broken, or no PDF: {error}") from error
    try:
        if len(document) > most_pages:
            raise ParseError(f"it has {len(document):,} pages, and {most_pages:,} are allowed")
        pages = [_page(document, number) for number in range(len(document))]
    finally:
        document.close()
    if not any(page.strip() for page in pages):
        raise ParseError("it holds no text, only images of it perhaps: recognise the text (OCR) first")
    return "\f".join(pages)


def _page(document: pypdfium2.PdfDocument, number: int) -> str:
    try:
        page = document[number]
        layer = page.get_textpage()
    except PdfiumError as error:
        raise ParseError(f"its page {number + 1} is broken: {error}") from error
    try:
        found = str(layer.get_text_range()).translate(_LINE_END_HYPHENS)
    finally:
        layer.close()
        page.close()
    return found.replace("\r\n", "\n").replace("\f", "\n")
