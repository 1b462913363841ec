"""What a trainer may score as one sequence: an episode's model calls, split where a prompt starts afresh.

Scoring several turns in one pass rests on this: what the model has read and written so far is, token by token, the
beginning of its next prompt. It is not so where the conversation was compacted, nor where a chat template renders a
tool call otherwise than the model wrote it: with other blanks, in another order, in another form. Nor always where it
renders the same text: a grammar, or chance, may have spelled that in other tokens than the tokenizer would.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from feedback.events import ModelCall


@dataclass(frozen=True)
class Segment:
    """Consecutive model calls as one sequence of tokens.

    `sampled[i]`: the policy drew token `i`, with `logprobs[i]`; of the others, which it was given, that is 0.
    """

    token_ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    logprobs: tuple[float, ...]
    calls: tuple[ModelCall, ...]


def segments(calls: Iterable[ModelCall]) -> list[Segment]:
    """The calls of one episode, in their order, as the fewest sequences that hold each completion where it was drawn.

    Raises `ValueError` for a call without token ids (another provider's, or one that was redacted).
    """
    runs: list[list[ModelCall]] = []
    for call in calls:
        if not (call.prompt_token_ids and call.completion_token_ids):
            raise ValueError("a call without token ids cannot be scored")
        if runs and continues(runs[-1][-1], call):
            runs[-1].append(call)
        else:
            runs.append([call])
    return [_segment(run) for run in runs]


def continues(earlier: ModelCall, later: ModelCall) -> bool:
    """Whether the later prompt begins with the earlier prompt and what was generated from it."""
    before = earlier.prompt_token_ids + earlier.completion_token_ids
    return later.prompt_token_ids[: len(before)] == before


def _segment(run: Sequence[ModelCall]) -> Segment:
    token_ids = run[-1].prompt_token_ids + run[-1].completion_token_ids
    sampled = [False] * len(token_ids)
    logprobs = [0.0] * len(token_ids)
    for call in run:
        first, end = len(call.prompt_token_ids), len(call.prompt_token_ids) + len(call.completion_token_ids)
        assert token_ids[first:end] == call.completion_token_ids, (
            "the calls of a segment continue one another"
        )
        sampled[first:end] = [True] * (end - first)
        logprobs[first:end] = call.logprobs
    return Segment(token_ids, tuple(sampled), tuple(logprobs), tuple(run))
