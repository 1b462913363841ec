"""Whether an answer about a contract is right, and whether what it cites stands where it says.

Answers are compared by their words (`evaluation.scoring.text`), never judged by a model:

- an answer *holds* a gold one when it has nearly all of its words and is not much longer, or shares most words with it;
- a *value* (a date, a party, a law, a period) is right when the answer holds it; all its numbers and dates must be
  there, and all its words where these are few, for New Jersey shares half its words with New York;
- a *clause* (`span`) is right when the answer, or what it quotes, holds the gold answer or one of the passages of the
  evidence.

A citation is page-correct when a quote stands on the page that is named and this is a page of the evidence. Quotes of
fewer than three words prove nothing and are passed over, unless the evidence is itself as short.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from evaluation.scoring import answers
from evaluation.scoring.answers import Quote
from evaluation.scoring.text import overlap, plain, words
from evaluation.scoring.verdict import Verdict
from evaluation.tasks import ContractTask
from tools.documents.index import Index
from tools.documents.ingest import ingest
from tools.documents.quotes import check

F1 = 0.5  # of the words, from which an answer is the gold one in other words
CONTAINED = 0.8  # of the gold's words, from which the answer holds it
LONGEST = 4  # times the gold's words (and 20 more), up to which holding it counts: no prize for reciting the contract
_SPARE_WORDS = 20
_FEW_WORDS = 5
_QUOTED_WORDS = 3


def score(task: ContractTask, text: str) -> Verdict:
    """The verdict on the agent's last text."""
    answer = answers.read(text)
    if answer is None or not (answers.is_refusal(answer) or isinstance(answer.get("answer"), str)):
        return Verdict(outcome="malformed", note="neither an answer nor a refusal")
    if answers.is_refusal(answer):
        return Verdict(outcome="wrong_refusal" if task.answerable else "correct_refusal")
    if not task.answerable:
        return Verdict(outcome="hallucination", quotes_exist=_all_exist(task, answers.quotes(answer)))
    return _judged(task, answer)


def _judged(task: ContractTask, answer: dict[str, Any]) -> Verdict:
    assert task.answer is not None
    cited = answers.quotes(answer)
    if task.answer_kind == "value":
        right = _has_value(answer["answer"], task.answer)
    else:
        quoted = [quote.text for quote in cited]
        said = (answer["answer"], *quoted, "\n".join(quoted))
        right = any(_holds(one, gold) for one in said for gold in (task.answer, *_clauses(task)))
    return Verdict(
        outcome="correct" if right else "wrong",
        page_correct=any(_stands(task, quote) and _is_evidence(task, quote) for quote in cited),
        quotes_exist=_all_exist(task, cited),
    )


def _clauses(task: ContractTask) -> list[str]:
    """Passages that say enough by themselves."""
    return [one.text for one in task.evidence if len(words(one.text)) > _FEW_WORDS]


def _has_value(answer: str, gold: str) -> bool:
    theirs, wanted = set(words(answer)), set(words(gold))
    needed = wanted if len(wanted) <= _FEW_WORDS else {word for word in wanted if word[0].isdecimal()}
    return needed <= theirs and _holds(answer, gold)


def _holds(answer: str, gold: str) -> bool:
    theirs, wanted = words(answer), words(gold)
    if not wanted:  # nothing but signs, e.g. what was blacked out
        return plain(gold) in plain(answer)
    recall, f1 = overlap(theirs, wanted)
    brief = len(theirs) <= LONGEST * len(wanted) + _SPARE_WORDS
    return f1 >= F1 or (recall >= CONTAINED and brief)


def _all_exist(task: ContractTask, cited: Sequence[Quote]) -> bool | None:
    return all(_stands(task, quote) for quote in cited) if cited else None


def _stands(task: ContractTask, quote: Quote) -> bool:
    """Whether the quote can be read on the page that it names."""
    found = check(_contract(task.path), quote.text, quote.page)
    return found is not None and found.on_page


def _is_evidence(task: ContractTask, quote: Quote) -> bool:
    on_page = [
        one for one in task.evidence if quote.page is not None and one.page <= quote.page <= one.page_end
    ]
    least = min((len(words(one.text)) for one in on_page), default=0)
    return bool(on_page) and len(words(quote.text)) >= min(_QUOTED_WORDS, least)


@lru_cache(maxsize=256)
def _contract(path: Path) -> Index:
    return Index(ingest(path))
