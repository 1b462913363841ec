"""The words of a text that say something, as stems: what a search for words compares."""

import re
from functools import lru_cache

import snowballstemmer

_WORD = re.compile(r"[^\W_]+")
_STOP_WORDS = frozenset(
    "a an and are as at be been by did do does for from give had has have how i in is it its many me much of on or our "
    "please show tell that the their them there these they this to was we were what when which who with you".split()
)


def words(text: str) -> list[str]:
    """The stems of all words but the most common ones, in their order."""
    return [_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    # A stemmer holds the word that it works on: threads that share one search for one another's words.
    return str(snowballstemmer.stemmer("english").stemWord(word))
