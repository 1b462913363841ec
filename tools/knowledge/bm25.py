"""Texts as sparse vectors of BM25 weights (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75).

Term weights are computed here, the inverse document frequency by Qdrant (`Modifier.IDF`).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping

import snowballstemmer
from qdrant_client import models

_K1, _B = 1.2, 0.75
_WORD = re.compile(r"[a-z0-9]+")
_STOP_WORDS = frozenset(
    "a an and are as at be been by did do does for from give had has have how i in is it its many me much of on or our "
    "please show tell that the their them there these they this to was we were what when which who with you".split()
)


def words(text: str) -> list[str]:
    """The stems of all words that say something."""
    # A stemmer holds the word that it works on: threads that share one search for one another's words.
    stemmer = snowballstemmer.stemmer("english")
    return [stemmer.stemWord(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


def document(text: str, average: float) -> models.SparseVector:
    """What a text is indexed by; `average` is the length of a text in its collection, in words."""
    counts = Counter(words(text))
    norm = _K1 * (1 - _B + _B * counts.total() / average) if average else _K1
    return _sparse({word: n * (_K1 + 1) / (n + norm) for word, n in counts.items()})


def query(text: str) -> models.SparseVector:
    """What a text is searched by."""
    return _sparse(Counter(words(text)))


def _sparse(weights: Mapping[str, float]) -> models.SparseVector:
    """Words as 32-bit indices: a collision only blurs a score, and no vocabulary has to be kept."""
    indices = {
        int.from_bytes(hashlib.blake2s(word.encode(), digest_size=4).digest()): w
        for word, w in weights.items()
    }
    return models.SparseVector(indices=list(indices), values=list(indices.values()))
