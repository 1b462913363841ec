"""What a document is about at a glance: its headings, and an overview that a prompt can hold."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tools.content import as_content
from tools.documents.document import Document

HEADINGS = 60  # in an overview
HEADING_CHARACTERS = 80

_NAMED = re.compile(
    r"(?:article|section|schedule|exhibit|annex|appendix|attachment|part|chapter)\s+(?:[\divxlc]+|[a-z])\b[.:]?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?:\d{1,2}(?:\.\d{1,2})?\.?|[IVXLC]{1,6}\.)\s+(?=[A-Z“\"])")
_LEADERS = re.compile(
    r"(?:\s?[.…·_]){3,}\s*[\divxlc]*\s*$", re.IGNORECASE
)  # dots to a number: a table of contents
_SMALL = frozenset("a an and as at by for from in of on or other the to under upon with without".split())
_SENTENCE_ENDS = (".", ":", ";", "!", "?", "”", '"', ")", "]")
_FULL_LINE = 45  # characters, from which on a sentence may have been broken at its end
_RUNNING = 3  # times that a line is repeated which is no heading but a page's header


@dataclass(frozen=True)
class Heading:
    """A line that parts the document, and the page on which it stands. Level 2 is a part of a part (9.2)."""

    page: int
    text: str
    level: int


def headings(document: Document) -> list[Heading]:
    """Lines that look like headings, in their order: numbered (9.2 Insurance), named (ARTICLE IV, with its title where
    that follows) or in capitals, and not the middle of a sentence.

    It goes by the look alone, as a text has nothing else: it misses some, and takes for headings some that are none.
    What is repeated on several pages is left out; of what a table of contents says as well, the last is kept.
    """
    found = [
        heading
        for number, page in enumerate(document.pages, start=1)
        for heading in _on_page(number, document.text[page.start : page.end])
    ]
    times = Counter(heading.text.casefold() for heading in found)
    last = {heading.text.casefold(): heading for heading in found}
    return [
        heading
        for heading in found
        if times[heading.text.casefold()] < _RUNNING and last[heading.text.casefold()] is heading
    ]


def overview(document: Document) -> str:
    """What document is read, how long it is, and its headings with their pages: content, for a prompt.

    Where the headings are too many, those of level 2 are left out first.
    """
    found = headings(document)
    if len(found) > HEADINGS:
        found = [heading for heading in found if heading.level == 1]
    kind = "pages" if document.paged else "parts, counted as pages (the file has none of its own)"
    lines = [f"{document.name}: {len(document.pages)} {kind}, {len(document.text):,} characters"]
    lines += [f"page {heading.page}: {heading.text}" for heading in found[:HEADINGS]]
    if len(found) > HEADINGS:
        lines.append(f"and {len(found) - HEADINGS} more headings, up to page {found[-1].page}")
    return as_content("\n".join(lines), f"{document.name}, overview")


def _on_page(number: int, text: str) -> Iterator[Heading]:
    named: Heading | None = None  # waits for its title: ARTICLE IV
    goes_on = False  # the line before, into this one, which then begins nothing
    for row in text.splitlines():
        line = " ".join(_LEADERS.sub("", row).split())
        if not line:
            goes_on = False
            continue
        heading = None if goes_on else _heading(number, line)
        goes_on = heading is None and len(line) >= _FULL_LINE and not line.endswith(_SENTENCE_ENDS)
        if named is not None:
            has_title = heading is not None and heading.level == 1 and not _NAMED.match(line)
            yield Heading(number, f"{named.text} {line}", 1) if has_title else named
            heading = None if has_title else heading
            named = None
        if heading is not None and _NAMED.fullmatch(line):
            named = heading
        elif heading is not None:
            yield heading
    if named is not None:
        yield named


def _heading(page: int, line: str) -> Heading | None:
    if not 4 <= len(line) <= 400:
        return None
    if name := _NAMED.match(line):
        title = line[name.end() :].strip(" .:-–—")  # noqa: RUF001  # dashes of all kinds
        is_title = len(line) <= HEADING_CHARACTERS and (not title or _is_capitalised(title))
        return Heading(page, line, 1) if is_title else None
    if number := _NUMBER.match(line):
        # The clause often goes on in the same line: "9.2 Insurance. The Supplier shall …".
        title = re.split(r"(?<=\w)[.:]\s", line[number.end() :], maxsplit=1)[0].strip(" .:")
        if len(title) > HEADING_CHARACTERS or not _is_capitalised(title):
            return None
        digits = number[0].strip()
        return Heading(page, f"{digits} {title}", 2 if "." in digits.rstrip(".") else 1)
    letters = [character for character in line if character.isalpha()]
    is_short = len(line) <= HEADING_CHARACTERS and len(letters) >= max(6, len(line) // 2)
    return Heading(page, line, 1) if is_short and line.isupper() and line[-1] not in ",;" else None


def _is_capitalised(title: str) -> bool:
    words = [word for word in re.findall(r"[^\W\d_]+", title) if word.lower() not in _SMALL]
    return bool(words) and sum(word[0].isupper() for word in words) >= 0.7 * len(words)
