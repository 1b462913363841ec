"""The three tools that read one document: pages by number, passages by their words, passages by their meaning.

Whatever they answer is content (`tools.content`), says on which page and at which characters it stands, and is bounded.
They are closed over one document: nothing that a model asks for, or a document says, opens another.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tools.content import as_content
from tools.documents.document import Document, Span
from tools.documents.index import MOST_MATCHES, QUERY_CHARACTERS, Index
from tools.documents.library import Library
from tools.documents.selection import numbers, selected
from tools.embedding import Embedder
from tools.errors import ToolError
from tools.tool import FunctionTool, Tool

ANSWER_CHARACTERS = 16_000  # of the pages that one call shows
RESULTS = 6  # of a search, unless another number is asked for
MOST_RESULTS = 20
_AROUND = 150  # characters shown on each side of a match
_SNIPPET = 800  # characters of one result


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SelectPages(_Arguments):
    """What `select_pages` takes."""

    pages: str = Field(description='Page numbers and ranges, for example "3-5, 9".', max_length=100)
    from_character: int | None = Field(
        None, description="Go on with a page that was cut: where it goes on.", ge=0
    )


class SearchText(_Arguments):
    """What `search_text` takes."""

    query: str = Field(min_length=1, max_length=QUERY_CHARACTERS)
    mode: Literal["words", "exact", "fuzzy", "regex"] = Field(
        "words",
        description="words: passages that share most words with the query, best first; exact: where the query stands, "
        "whatever its case and line breaks; fuzzy: what is spelt like it; regex: RE2 syntax, write a blank as \\s+.",
    )
    limit: int = Field(RESULTS, description="Results to show.", ge=1, le=MOST_RESULTS)


class SearchMeaning(_Arguments):
    """What `search_meaning` takes."""

    query: str = Field(
        description="A question, or a sentence as it may stand there.",
        min_length=1,
        max_length=QUERY_CHARACTERS,
    )
    limit: int = Field(RESULTS, description="Results to show.", ge=1, le=MOST_RESULTS)


def tools(library: Library, document: str, tenant: str = "default") -> list[Tool]:
    """The tools for one document, by its id or name; `search_meaning` only where the library has an embedder.

    Raises `UnknownDocumentError`. Reads the document from the disk if it has not been read lately: call it in a thread.
    """
    index = library.open(document, tenant)

    async def select(asked: SelectPages) -> str:
        return await asyncio.to_thread(_select, index.document, asked)

    async def search(asked: SearchText) -> str:
        return await asyncio.to_thread(_search, index, asked)

    offered: list[Tool] = [
        FunctionTool("select_pages", "Read pages of the document by their numbers.", SelectPages, select),
        FunctionTool("search_text", "Find words, phrases or patterns in the document.", SearchText, search),
    ]
    embedder = library.embedder
    if embedder is not None:

        async def near(asked: SearchMeaning) -> str:
            return await asyncio.to_thread(_near, index, embedder, asked)

        offered.append(
            FunctionTool(
                "search_meaning",
                "Find passages of the document that are about what the query is about, in other words perhaps.",
                SearchMeaning,
                near,
            )
        )
    return offered


def _select(document: Document, asked: SelectPages) -> str:
    wanted = selected(asked.pages, len(document.pages))
    shown: list[str] = []
    room = ANSWER_CHARACTERS
    for place, number in enumerate(wanted):
        start, end = document.pages[number - 1]
        if asked.from_character is not None:
            if not start <= asked.from_character <= end:
                raise ToolError(
                    f"from_character is not on page {number}, which has characters {start} to {end}"
                )
            start = asked.from_character
        if shown and end - start > room:
            shown.append(
                f"There was no room for the pages {numbers(wanted[place:])}: ask for them by themselves."
            )
            break
        cut = min(end, start + room)
        source = f"{document.name}, page {number} of {len(document.pages)}, characters {start}-{cut}"
        shown.append(as_content(document.text[start:cut], source))
        if cut < end:
            shown.append(f"Page {number} was cut: it goes on from_character {cut}, up to {end}.")
        room -= cut - start
    return "\n".join(shown)


def _search(index: Index, asked: SearchText) -> str:
    document, limit = index.document, asked.limit
    if asked.mode == "words":
        return _listed(document, ((span, span) for span in index.words(asked.query, limit)))
    if asked.mode == "fuzzy":
        return _matches(document, index.fuzzy(asked.query, limit), limit)
    found = index.exact(asked.query) if asked.mode == "exact" else index.regex(asked.query)
    if not found:
        return "Nothing matches."
    count = f"at least {MOST_MATCHES}" if len(found) == MOST_MATCHES else str(len(found))
    pages = numbers(sorted({document.page_of(span.start) for span in found}))
    return f"Matches: {count}, on page {pages}.\n{_matches(document, found, limit)}"


def _near(index: Index, embedder: Embedder, asked: SearchMeaning) -> str:
    if index.vectors is None:
        # It was added before there was this embedder. An operator's `flywheel documents add` mends it.
        raise ToolError("this document has not been prepared for searches by meaning: use search_text")
    found = index.meaning(asked.query, embedder.embed([asked.query]), asked.limit)
    return _listed(index.document, ((span, span) for span in found))


def _matches(document: Document, found: Sequence[Span], limit: int) -> str:
    """The first matches with what stands around them; what an earlier one's surroundings show is not shown again."""
    shown: list[tuple[Span, Span]] = []
    for span in found:
        if len(shown) == limit:
            break
        if any(around.start <= span.start and span.end <= around.end for _, around in shown):
            continue
        around = Span(max(0, span.start - _AROUND), min(len(document.text), span.end + _AROUND))
        shown.append((span, around))
    return _listed(document, shown)


def _listed(document: Document, found: Iterable[tuple[Span, Span]]) -> str:
    """A line for each: where it stands, and its surroundings in one line, so that no text can pass for a result."""
    lines = []
    for span, around in found:
        first, last = document.pages_of(span)
        page = f"page {first}" if first == last else f"pages {first}-{last}"
        text = " ".join(document.text[around.start : around.end].split())
        text = text if len(text) <= _SNIPPET else text[:_SNIPPET] + " …"
        lines.append(f"{page} [{span.start}-{span.end}] {text}")
    if not lines:
        return "Nothing matches."
    return as_content("\n".join(lines), f"{document.name}, search results: page, [characters], text")
