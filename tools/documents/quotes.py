"""Does a quotation stand in the document, and on the page that is claimed? What a reviewer's answer is checked by."""

from dataclasses import dataclass

from tools.documents.document import Document, Span
from tools.documents.folding import fold, folded_words
from tools.documents.index import Index


@dataclass(frozen=True)
class Found:
    """Where a quotation really stands: pages `page` to `last_page`, characters `start` to `end` of the whole text.

    `text` is what stands there; `on_page` whether one of these pages is the one that was claimed.
    """

    page: int
    last_page: int
    start: int
    end: int
    text: str
    on_page: bool


def check(document: Document | Index, quote: str, page: int | None = None) -> Found | None:
    """Where the quotation stands: on `page` if it is there too, else where it first does. None: nowhere.

    It must stand there word by word, from the beginning of a word to the end of one. Allowed to differ are case, white
    space, hyphenation, accents, and the kind of quotation marks and dashes (`folding`). An `Index` is checked in
    quicker, the second time.
    """
    folded = document.folded if isinstance(document, Index) else fold(document.text)
    document = document.document if isinstance(document, Index) else document
    words = folded_words(quote)
    if not any(character.isalnum() for character in words):
        return None
    elsewhere: Found | None = None
    for span in folded.occurrences(words):
        if not _is_whole(document.text, span):
            continue
        first, last = document.pages_of(span)
        on_page = page is not None and first <= page <= last
        found = Found(first, last, span.start, span.end, document.text[span.start : span.end], on_page)
        if on_page or page is None:
            return found
        elsewhere = elsewhere or found
    return elsewhere


def _is_whole(text: str, span: Span) -> bool:
    before, first = text[span.start - 1 : span.start], text[span.start]
    last, after = text[span.end - 1], text[span.end : span.end + 1]
    return not ((before.isalnum() and first.isalnum()) or (last.isalnum() and after.isalnum()))
