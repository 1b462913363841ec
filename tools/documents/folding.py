"""A text in the form in which two spellings of the same words are equal, and the way back to where they stand.

Folded away are upper case, accents, ligatures and widths (Unicode's NFKD), what a white space is made of and how long
it is (ends of lines and pages included), the many quotation marks and dashes, and the hyphen inside a word: it may be
the writer's (third-party) or the typesetter's at the end of a line. A hyphen beside a digit stays: 10-15 is not 1015.
"""

import re
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tools.documents.document import Span

_QUOTES = frozenset("'\"`´‘’‚‛“”„‟′″«»‹›")  # noqa: RUF001  # the look-alikes are meant
_DASHES = frozenset("-‐‑‒–—―−﹘﹣－\u00ad")  # noqa: RUF001  # as above
_RUN = re.compile(r"[A-Za-z0-9.,;:()$%&/?!#*@+=\[\]_]+|.", re.DOTALL)  # what needs no table, or one character
_BLANK, _DASH, _QUOTE = " ", "-", "'"


@dataclass(frozen=True)
class Folded:
    """The folded text; `origins[i]` is where its character `i` came from."""

    text: str
    origins: "array[int]"

    def span(self, start: int, end: int) -> Span:
        """Where the folded characters `start` to `end` (more than none) stand in the original text."""
        return Span(self.origins[start], self.origins[end - 1] + 1)

    def occurrences(self, words: str) -> Iterator[Span]:
        """Where folded words stand in the original text; occurrences do not overlap."""
        at = self.text.find(words) if words else -1
        while at >= 0:
            yield self.span(at, at + len(words))
            at = self.text.find(words, at + len(words))


def fold(text: str) -> Folded:
    """Fold a whole text."""
    out: list[str] = []
    origins = array("Q")
    last = ""  # the character before
    gap: tuple[str, int] | None = None  # a blank or dash that counts only if something follows
    for run in _RUN.finditer(text):
        start = run.start()
        folded = run[0].lower() if len(run[0]) > 1 else _fold_character(run[0])
        if folded in (_BLANK, _DASH):
            if gap is None or folded == _DASH:
                gap = (folded, start)
            continue
        if not folded or (folded == _QUOTE and last == _QUOTE and gap is None):  # ``such'' are two characters
            continue
        if gap is not None:
            if gap[0] == _DASH and not (last.isalpha() and folded[0].isalpha()):
                out.append(_DASH)
                origins.append(gap[1])
            elif gap[0] == _BLANK and last:
                out.append(_BLANK)
                origins.append(gap[1])
            gap = None
        out.append(folded)
        if len(run[0]) > 1:
            origins.extend(range(start, run.end()))
        else:
            origins.extend([start] * len(folded))
        last = folded[-1]
    return Folded("".join(out), origins)


def folded_words(words: str) -> str:
    """What somebody looks for, as it stands in a folded text."""
    return fold(words).text.strip(" -")


@lru_cache(maxsize=4_096)
def _fold_character(character: str) -> str:
    if character.isspace():
        return _BLANK
    if character in _DASHES:
        return _DASH
    if character in _QUOTES:
        return _QUOTE
    if unicodedata.category(character) == "Cf":  # not seen
        return ""
    spelt = unicodedata.normalize("NFKD", character.casefold())
    kept = "".join(c for c in spelt if not unicodedata.combining(c)).strip() or _BLANK
    return _fold_character(kept) if len(kept) == 1 and kept != character else kept
