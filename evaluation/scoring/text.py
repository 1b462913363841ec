"""Texts as they are compared: normalised into words, numbers and dates."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import date

_MONTHS = {
    name[:3]: number
    for number, name in enumerate(
        "january february march april may june july august september october november december".split(), 1
    )
}
_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY, _YEAR = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?", r"(?P<year>\d{4})"
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})\b",
        r"\b(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4}|\d{2})\b",  # the order of the United States
        rf"\b{_MONTH}\s+{_DAY}\s*,?\s*(?:of\s+)?{_YEAR}\b",
        rf"\b{_DAY}\s*(?:day\s+)?(?:of\s+)?{_MONTH}\s*,?\s*{_YEAR}\b",
    )
)
_PIVOT = 50  # a year of two digits below it is of this century
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
} | {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "ninety": "90"}
_EMPTY = frozenset(  # any two clauses share these
    "a an and any as at be been but by for from has have hereby herein hereof hereto hereunder if in into is it "
    "may of on or other shall such than that the their there thereof these this those to under upon was were "
    "which will with".split()
)
_WORD = re.compile(r"[^\W_]+")
_SAME = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--", "\u00ad"
)  # curly quotes, dashes; soft hyphens


def plain(text: str) -> str:
    """For looking a quote up: case, kinds of quotation marks and dashes, and all white space made alike."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_SAME).casefold().split())


def words(text: str) -> list[str]:
    """The words that count: dates as ISO 8601 has them, numbers in digits, plurals as singulars; none of
    those that every text is full of, unless there are no others.
    """
    text = plain(text)
    for pattern in _DATES:
        text = pattern.sub(_iso, text)
    found: list[str] = []
    for part in re.split(r"(\b\d{4}-\d{2}-\d{2}\b)", text):
        found += [part] if re.fullmatch(r"\d{4}-\d{2}-\d{2}", part) else map(_word, _WORD.findall(part))
    return [word for word in found if word not in _EMPTY] or found


def _word(word: str) -> str:
    if word in _NUMBERS:
        return _NUMBERS[word]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _iso(match: re.Match[str]) -> str:
    named = match["month"]
    month = int(named) if named.isdecimal() else _MONTHS[named[:3]]
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 2000 if year < _PIVOT else 1900
    try:
        return f" {date(year, month, int(match['day'])).isoformat()} "
    except ValueError:  # 31 June: words like any other
        return match[0]


def overlap(answer: Sequence[str], gold: Sequence[str]) -> tuple[float, float]:
    """How much of the gold's words is in the answer (recall), and token F1, as in SQuAD (Rajpurkar et al. 2016)."""
    common = (Counter(answer) & Counter(gold)).total()
    if not common:
        return 0.0, 0.0
    precision, recall = common / len(answer), common / len(gold)
    return recall, 2 * precision * recall / (precision + recall)
