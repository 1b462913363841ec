"""What a document is about at a glance: its headings, and an overview that a prompt can hold."""

import re
from collections import Counter
from dataclasses import dataclass

from tools.content import as_content
from tools.documents.document import Document

HEADINGS = 60  # in an overview
HEADING_CHARACTERS = 80

_NAMED = re.compile(
    r"(?:article|section|schedule|exhibit|annex|appendix|attachment|part|chapter)\s+[\divxlc]+[a-z]?\b", re.I
)
_NUMBER = re.compile(r"(?:\d{1,2}(?:\.\d{1,2})?\.?|[IVXLC]{1,6}\.)\s+(?=[A-Z“\"])")
_LEADERS = re.compile(
    r"(?:\s?[.…·_]){3,}\s*[\divxlc]*\s*$", re.I
)  # dots to a page number: a table of contents
_SMALL = frozenset("a an and as at by for from in of on or other the to under upon with without".split())
_RUNNING = 3  # times that a page's header is repeated, which is no heading


@dataclass(frozen=True)
class Heading:
    """A line that parts the document, and the page on which it stands."""

    page: int
    text: str


def headings(document: Document) -> list[Heading]:
    """Lines that look like headings: numbered or named (ARTICLE IV, 9.2 Insurance) or in capitals, in their order.

    It goes by the look alone, as a text has nothing else, so it misses some and takes some line for a heading that is
    none. What is repeated on several pages is left out; of what a table of contents says as well, the last is kept.
    """
    found = [
        Heading(number, title)
        for number, page in enumerate(document.pages, start=1)
        for line in document.text[page.start : page.end].splitlines()
        if (title := _title(line)) is not None
    ]
    times = Counter(heading.text.casefold() for heading in found)
    last = {heading.text.casefold(): heading for heading in found}
    return [
        heading
        for heading in found
        if times[heading.text.casefold()] < _RUNNING and last[heading.text.casefold()] is heading
    ]


def overview(document: Document) -> str:
    """What document is read, how long it is, and its headings with their pages: content, for a prompt."""
    found = headings(document)
    kind = "pages" if document.paged else f"parts, counted as pages: the file has none of its own"
    lines = [f"{document.name}: {len(document.pages)} {kind}; {len(document.text):,} characters"]
    lines += [f"page {heading.page}: {heading.text}" for heading in found[:HEADINGS]]
    if len(found) > HEADINGS:
        lines.append(f"and {len(found) - HEADINGS} more headings, up to page {found[-1].page}")
    return as_content("\n".join(lines), f"{document.name}, overview")


def _title(line: str) -> str | None:
    line = " ".join(_LEADERS.sub("", line).split())
    if not 4 <= len(line) <= 400:
        return None
    number = _NUMBER.match(line)
    if _NAMED.match(line) and len(line) <= HEADING_CHARACTERS and not line.endswith((",", ";")):
        return line
    if number:
        # The clause often goes on in the same line: "9.2 Insurance. The Supplier shall …".
        title = re.split(r"(?<=\w)[.:]\s", line[number.end() :], maxsplit=1)[0].strip(" .:")
        if len(title) <= HEADING_CHARACTERS and _is_capitalised(title):
            return number[0].strip() + " " + title
        return None
    letters = [character for character in line if character.isalpha()]
    is_short = len(line) <= HEADING_CHARACTERS and len(letters) >= max(6, len(line) // 2)
    return line if is_short and line.isupper() and line[-1] not in ",;" else None


def _is_capitalised(title: str) -> bool:
    words = [word for word in re.findall(r"[^\W\d_]+", title) if word.lower() not in _SMALL]
    return bool(words) and sum(word[0].isupper() for word in words) >= 0.7 * len(words)
