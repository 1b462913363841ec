"""All searches in one document. Each answers with spans of the whole text and reads no more than the document."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from heapq import nlargest
from itertools import islice
from typing import Any

from tools.documents.document import Document, Span
from tools.documents.folding import Folded, fold, folded_words
from tools.documents.passages import Bm25, passages
from tools.embedding import Vectors
from tools.errors import ToolError

MOST_MATCHES = 1_000  # that a search in order of the text goes on to find
QUERY_CHARACTERS = 300
LIKENESS = 75  # of 100, from which on a stretch of text is like the query (rapidfuzz's partial ratio)

_WINDOW = 2_000  # folded characters that are compared at once
_AUTOMATON_BYTES = 2**20  # of a regular expression, where RE2's own limit is 8 MiB


class Index:
    """One document, ready to be searched. Safe to be used by several threads; parts are made when first needed."""

    vectors: Vectors | None = (
        None  # a row for each of `passages`; without them there is no search for meaning
    )

    def __init__(self, document: Document) -> None:
        self.document = document
        self.passages = passages(document)

    @cached_property
    def folded(self) -> Folded:
        """The text in which spellings do not differ."""
        return fold(self.document.text)

    @cached_property
    def _bm25(self) -> Bm25:
        return Bm25(self.texts)

    @property
    def texts(self) -> list[str]:
        """The text of each passage."""
        return [self.document.text[start:end] for start, end in self.passages]

    def exact(self, query: str) -> list[Span]:
        """Where the query stands, whatever the case, white space, hyphenation and quotation marks; in their order."""
        return list(islice(self.folded.occurrences(folded_words(query)), MOST_MATCHES))

    def regex(self, pattern: str) -> list[Span]:
        """Matches of an expression in RE2's syntax, in either case, that are not empty; in their order.

        RE2 takes time in proportion to the text, whatever the expression. Raises `ToolError` for one that is wrong.
        """
        import re2  # noqa: PLC0415  # optional

        options = re2.Options()
        options.max_mem = _AUTOMATON_BYTES
        options.case_sensitive = False
        options.log_errors = False
        try:
            expression = re2.compile(pattern, options)
        except re2.error as error:
            raise ToolError(f"not a regular expression of RE2's syntax: {error.args[0].decode()}") from error
        except UnicodeEncodeError as error:
            raise ToolError("a regular expression holds no halves of surrogate pairs") from error
        found = (Span(*match.span()) for match in expression.finditer(self.document.text))
        return list(islice((span for span in found if span.end > span.start), MOST_MATCHES))

    def fuzzy(self, query: str, limit: int) -> list[Span]:
        """Stretches of text that are like the query in spelling, the most alike first."""
        from rapidfuzz import fuzz  # noqa: PLC0415  # optional

        wanted = folded_words(query)[:QUERY_CHARACTERS]  # folding makes several characters of some
        if not wanted or len(wanted) > len(self.folded.text):
            return []
        found: dict[Span, float] = {}
        for start, window in _windows(self.folded.text, len(wanted)):
            like: Any = fuzz.partial_ratio_alignment(wanted, window, score_cutoff=LIKENESS)
            if like is None or not (piece := window[like.dest_start : like.dest_end]).strip():
                continue
            first = start + like.dest_start + len(piece) - len(piece.lstrip())
            span = self.folded.span(first, first + len(piece.strip()))
            found[span] = max(like.score, found.get(span, 0.0))
        best = nlargest(limit * 2, found, key=lambda span: (found[span], -span.start))
        return _apart(best)[:limit]

    def words(self, query: str, limit: int) -> list[Span]:
        """The passages that share most with the query's words, by BM25."""
        return self._best(self._bm25.scores(query), limit)

    def meaning(self, query: str, vector: Vectors, limit: int) -> list[Span]:
        """The passages that are nearest in meaning (`vector`: the query's, one row) and in words, in equal parts.

        The cosine and the BM25 score, this as a part of the best one's, are added up: a convex combination (Bruch et
        al. 2023, arXiv 2210.11934), which found the evidence of contract questions more often than either alone.
        """
        assert self.vectors is not None, "whoever asks for meaning has made vectors"
        shared = self._bm25.scores(query)
        best = max(shared.values(), default=1.0)
        near = enumerate((self.vectors @ vector[0]).tolist())
        return self._best({number: cosine + shared.get(number, 0.0) / best for number, cosine in near}, limit)

    def _best(self, scores: Mapping[int, float], limit: int) -> list[Span]:
        best = nlargest(limit, scores, key=lambda number: (scores[number], -number))
        return [self.passages[number] for number in best]


def _windows(text: str, length: int) -> Iterator[tuple[int, str]]:
    """Pieces that overlap by twice the length of what is looked for, so that no match falls between two."""
    step = _WINDOW - 2 * length
    for start in range(0, max(len(text) - 2 * length, 1), step):
        yield start, text[start : start + _WINDOW]


def _apart(spans: list[Span]) -> list[Span]:
    """Without those that overlap one before them."""
    kept: list[Span] = []
    for span in spans:
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return kept
