"""A document in passages of some sentences: what the searches for words and for meaning weigh against each other."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from tools.documents.document import Document, Span
from tools.words import words

PASSAGE_CHARACTERS = 700

_K1, _B = 1.2, 0.75
_ENDS = tuple(re.compile(end) for end in (r"\n\s*\n", r"[.;:!?][\"”\u2019)\]]*\s", r"\n", r"\s"))


def passages(document: Document) -> tuple[Span, ...]:
    """Spans of at most `PASSAGE_CHARACTERS` that begin and end with a word and never cross a page's end.

    They end with a paragraph, else a sentence, else a line, else a word; only what has no white space is cut within.
    """
    found: list[Span] = []
    for page in document.pages:
        start = page.start
        while start < page.end:
            end = _end(document.text, start, page.end)
            piece = document.text[start:end]
            if piece.strip():
                found.append(
                    Span(start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip()))
                )
            start = end
    return tuple(found)


def _end(text: str, start: int, limit: int) -> int:
    if limit - start <= PASSAGE_CHARACTERS:
        return limit
    first, last = start + PASSAGE_CHARACTERS // 2, start + PASSAGE_CHARACTERS
    for end in _ENDS:
        found = [match.end() for match in end.finditer(text, first, last)]
        if found:
            return found[-1]
    return last


class Bm25:
    """Passages by the words that they share with a query (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75)."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        average = sum(count.total() for count in counts) / max(len(counts), 1)
        self._weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, count in enumerate(counts):
            norm = _K1 * (1 - _B + _B * count.total() / average) if average else _K1
            for word, times in count.items():
                self._weights[word].append((number, times * (_K1 + 1) / (times + norm)))
        self._size = len(counts)

    def scores(self, query: str) -> dict[int, float]:
        """The texts, by number, that share a word with the query, and how well they match it (more than 0)."""
        scores: dict[int, float] = defaultdict(float)
        for word in set(words(query)):
            holders = self._weights.get(word, ())
            rarity = math.log(1 + (self._size - len(holders) + 0.5) / (len(holders) + 0.5))
            for number, weight in holders:
                scores[number] += rarity * weight
        return scores
