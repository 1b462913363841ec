"""A document as its readers see it: one text in pages, in which a page and two offsets cite a passage.

Offsets count characters (Unicode code points) from the beginning of the whole text. A form feed stands between two
pages and belongs to neither, so that the text alone says where its pages are.
"""

import hashlib
import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

PAGE_END = "\f"
PART_CHARACTERS = 3_000  # of a page that is made by size: about what a printed one holds

_CONTROLS = dict.fromkeys([*range(9), 11, *range(14, 32), *range(127, 160), *range(0xD800, 0xE000)], " ")


class Span(NamedTuple):
    """Characters `start` to `end` of the whole text, `end` not included."""

    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """An immutable text with its pages. `paged`: the pages are the file's own, and not parts of a certain size."""

    name: str
    text: str
    paged: bool

    @cached_property
    def digest(self) -> str:
        """Of the text, and so of the pages: citations hold for all documents of this digest."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def pages(self) -> tuple[Span, ...]:
        """Where each page stands, in order. Page 1 is the first; there is always one."""
        ends = [found.start() for found in re.finditer(PAGE_END, self.text)]
        starts = [0, *(end + 1 for end in ends)]
        return tuple(Span(start, end) for start, end in zip(starts, [*ends, len(self.text)], strict=True))

    def page_of(self, offset: int) -> int:
        """The number of the page on which the character stands; a form feed counts to the page that it ends."""
        return bisect_right(self.pages, offset, key=lambda page: page.start)

    def pages_of(self, span: Span) -> tuple[int, int]:
        """The numbers of the first and the last page that a span touches."""
        return self.page_of(span.start), self.page_of(max(span.start, span.end - 1))

    def page(self, number: int) -> str:
        """The text of one page, counted from 1. Raises `IndexError` where there is none."""
        if number < 1:
            raise IndexError(number)
        start, end = self.pages[number - 1]
        return self.text[start:end]


def cleaned(text: str) -> str:
    """`text` with blanks for control characters and halves of surrogates, and line feeds for other ends of lines.

    Each character stays where it was. A form feed at the very end ends the last page and begins none.
    """
    text = text.replace("\r\n", " \n").replace("\r", "\n").translate(_CONTROLS)
    return text.removesuffix(PAGE_END)


def parted(text: str) -> str:
    """A text without pages in parts of at most `PART_CHARACTERS`, each ending where a paragraph does, else a line, else
    a word. The white space there becomes the form feed, so that characters stay where they are; only where there is
    none for a whole part, a form feed is put in.
    """
    parts: list[str] = []
    start = 0
    while len(text) - start > PART_CHARACTERS:
        window = text[start + PART_CHARACTERS // 2 : start + PART_CHARACTERS]
        found = next((end for end in map(window.rfind, ("\n\n", "\n", " ")) if end >= 0), None)
        if found is None:
            parts.append(text[start : start + PART_CHARACTERS])
            start += PART_CHARACTERS
            continue
        end = start + PART_CHARACTERS // 2 + found
        end += text.startswith("\n\n", end)
        parts.append(text[start:end])
        start = end + 1
    parts.append(text[start:])
    return PAGE_END.join(parts)
