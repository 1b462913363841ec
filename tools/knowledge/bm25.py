"""Texts as sparse vectors of BM25 weights (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75).

Term weights are computed here, the inverse document frequency by Qdrant (`Modifier.IDF`).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping

from qdrant_client import models

from tools.words import words

_K1, _B = 1.2, 0.75


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
