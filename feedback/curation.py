"""From what people said to what can be learned from: one verified reference for each task, or none.

A rating is evidence of what the right answer is. Evidence is compared by what it evaluates to (its fingerprint), not by
how it is written; where people disagree, a clear majority decides or nobody does. Each rating is the one that a sample
is made of, or is counted once, by a reason:

- `malformed`: the answer or correction does not parse or does not execute
- `unverifiable`: it says that an answer is wrong and not what is right, or nothing can tell
- `duplicate`: it agrees with the sample; `outvoted`: it disagrees with the sample
- `contradictory`: people disagree about the task, and no side is clearly the larger
- `not_boolean`: its value is neither true nor false; `of_one_call`: it is not about the answer
- `free_text`: its correction is a text, of which nobody can tell what it evaluates to
- `no_question`: others told of its request, and what was asked is not known, or is nothing that one asks an agent here
- `redacted`: something was replaced in it, perhaps in its correction
"""

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feedback.episodes import Episode
from feedback.events import Message, Rating, RequestFinished
from feedback.samples import Curated, DatasetError, Sample, load, read_header, save

__all__ = ["Curated", "DatasetError", "Resolve", "Sample", "curate", "load", "read_header", "save", "task_id"]

Reference = dict[str, Any]
Resolve = Callable[[Reference], str | None]


@dataclass(frozen=True)
class _Evidence:
    """One rating that says what is right."""

    rating: Rating
    request: RequestFinished
    reference: Reference
    fingerprint: str

    @property
    def corrected(self) -> bool:
        """Whether the rater wrote the reference, rather than confirm an answer."""
        return not self.rating.value

    @property
    def preference(self) -> tuple[bool, bool, datetime, str]:
        """The least is the form to keep: what can be executed before bare rows, what was written before what was
        confirmed, then the oldest.
        """
        return ("rows" in self.reference, not self.corrected, self.rating.time, self.rating.event_id)


class _Task:
    """What everyone says about one task."""

    def __init__(self) -> None:
        self.evidence: list[_Evidence] = []
        self.supporters: defaultdict[str, set[str]] = defaultdict(
            set
        )  # by fingerprint: who says that it is right
        self.objectors: defaultdict[str, set[str]] = defaultdict(
            set
        )  # by fingerprint: who says only that it is wrong

    def verdict(self) -> str | None:
        """The fingerprint that stands: undisputed, or with two people behind it and twice as many as against it."""
        best, supporters = max(self.supporters.items(), key=lambda item: (len(item[1]), item[0]))
        against = sum(len(who) for fingerprint, who in self.supporters.items() if fingerprint != best)
        against += len(self.objectors[best])
        clear = against == 0 or (len(supporters) >= 2 and len(supporters) >= 2 * against)
        return best if clear else None


def curate(episodes: Iterable[Episode], resolve: Resolve, *, metric: str = "correct") -> Curated:
    """Turn the ratings of one agent's episodes into samples. The result does not depend on the order of the episodes.

    `resolve` returns the fingerprint of what a reference evaluates to, None when nothing can tell, and raises
    `ValueError` when the reference is malformed.
    """
    rejected: Counter[str] = Counter()
    tasks: defaultdict[str, _Task] = defaultdict(_Task)
    fingerprints = _Remembered(resolve)
    for request, ratings in episodes:
        task = tasks[task_id(request.input)]
        for rating in ratings:
            if rating.name != metric:
                continue
            reason = _weigh(request, rating, task, fingerprints)
            if reason is not None:
                rejected[reason] += 1
    samples: list[Sample] = []
    for name, task in sorted(tasks.items()):
        if not task.evidence:
            continue
        standing = task.verdict()
        agreeing = [evidence for evidence in task.evidence if evidence.fingerprint == standing]
        rejected["contradictory" if standing is None else "outvoted"] += len(task.evidence) - len(agreeing)
        if agreeing:
            samples.append(_sample(name, agreeing))
            rejected["duplicate"] += len(agreeing) - 1
    return Curated(tuple(samples), +rejected)  # + leaves out reasons counted zero times


def task_id(messages: Iterable[Message]) -> str:
    """What makes two requests the same task: a hash of the conversation, whatever its case, spacing and end marks."""
    turns = [_turn(message) for message in messages if message.role != "system"]
    return hashlib.sha256("\n".join(turns).encode()).hexdigest()[:32]


def _turn(message: Message) -> str:
    turn = f"{message.role}:{_normalised(message.text)}"
    if isinstance(message.content, str) and not message.tool_calls:
        return turn
    beside = [part for part in message.content or () if isinstance(part, dict) and "text" not in part]
    return turn + json.dumps([beside, message.tool_calls], sort_keys=True)


def _normalised(text: str) -> str:
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(words).rstrip("?!. ")


class _Remembered:
    """`resolve`, asked once for each reference: it may run a query."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._known: dict[str, str | None] = {}

    def __call__(self, reference: Reference) -> str | None:
        """The fingerprint, or None. Raises `ValueError`."""
        key = json.dumps(reference, sort_keys=True)
        if key not in self._known:
            self._known[key] = self._resolve(reference)
        return self._known[key]


def _weigh(request: RequestFinished, rating: Rating, task: _Task, resolve: Resolve) -> str | None:
    """Add what the rating says to the task. Returns the reason when it is no evidence of what is right."""
    if (reason := _unusable(request, rating)) is not None:
        return reason
    if not rating.value and rating.correction is None:
        _object(request, rating, task, resolve)
        return "unverifiable"
    try:
        said = rating.correction if isinstance(rating.correction, dict) and not rating.value else None
        reference = _answer(request) if said is None else said
        fingerprint = resolve(reference)
    except ValueError:
        return "malformed"
    if fingerprint is None:
        return "unverifiable"
    task.evidence.append(_Evidence(rating, request, reference, fingerprint))
    task.supporters[fingerprint].add(rating.rater)
    return None


def _unusable(request: RequestFinished, rating: Rating) -> str | None:
    if rating.call is not None:
        return "of_one_call"
    if not isinstance(rating.value, bool):
        return "not_boolean"
    if request.origin == "otlp" and not _is_question(request.input):
        return "no_question"
    if isinstance(rating.correction, str):
        return "free_text"
    if rating.redacted and rating.correction is not None:
        return "redacted"
    return None


def _is_question(messages: tuple[Message, ...]) -> bool:
    """Whether it is a conversation in plain words: without the instructions, tools and images of another's agent."""
    plain = all(
        message.role in {"user", "assistant"} and isinstance(message.content, str) and not message.tool_calls
        for message in messages
    )
    return plain and any(message.role == "user" for message in messages)


def _object(request: RequestFinished, rating: Rating, task: _Task, resolve: Resolve) -> None:
    try:
        wrong = resolve(_answer(request))
    except ValueError:  # an answer that does not execute: nobody can support it either
        return
    if wrong is not None:
        task.objectors[wrong].add(rating.rater)


def _answer(request: RequestFinished) -> Reference:
    answer = json.loads(request.output or "")
    if isinstance(answer, dict):
        return answer
    raise ValueError("the answer is not a JSON object")


def _sample(name: str, agreeing: list[_Evidence]) -> Sample:
    best = min(agreeing, key=lambda evidence: evidence.preference)
    raters = sorted({evidence.rating.rater for evidence in agreeing})
    asked = [message.text for message in best.request.input if message.role == "user"]
    return Sample(
        task_id=name,
        question=asked[-1] if asked else "",
        messages=best.request.input,
        reference=best.reference,
        corrected=best.corrected,
        support=len(raters),
        raters=tuple(raters),
        request_ids=tuple(sorted({evidence.request.request_id for evidence in agreeing})),
        policy=best.request.policy,
    )
