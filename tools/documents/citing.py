"""An answer that cites: every quotation in it must stand where it says."""

from collections.abc import Iterator, Mapping
from typing import Any

from tools.documents.index import Index
from tools.documents.library import Library
from tools.documents.quotes import check
from tools.tool import AnswerCheck

_SHOWN = 80  # characters of a quotation, in what is said against it


def citations(library: Library, document: str, tenant: str = "default") -> AnswerCheck:
    """A check of answers about one document: of each `{"quote": …, "page": …}` in their `quotes`.

    Raises `UnknownDocumentError`. Reads the document if it has not been read lately: call it in a thread.
    """
    index = library.open(document, tenant)
    return lambda answer: " ".join(_faults(index, answer)) or None


def _faults(index: Index, answer: Mapping[str, Any]) -> Iterator[str]:
    quotes = answer.get("quotes")
    for cited in quotes if isinstance(quotes, list) else ():
        quote, page = (cited.get("quote"), cited.get("page")) if isinstance(cited, dict) else (None, None)
        if not isinstance(quote, str):
            continue  # an agent's response schema says what a quotation looks like
        found = check(index, quote, page if isinstance(page, int) else None)
        shown = quote if len(quote) <= _SHOWN else f"{quote[:_SHOWN]}…"
        if found is None:
            yield f'"{shown}" does not stand in the document word by word.'
        elif isinstance(page, int) and not found.on_page:
            yield f'"{shown}" stands on page {found.page}, not on page {page}.'
