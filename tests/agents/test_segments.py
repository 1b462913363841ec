"""An episode as sequences that a trainer may score: nothing is left out, and nothing is masked in silence."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.segments import continues, segments
from feedback.events import ModelCall
from tests.contracts.samples import model_call

Tokens = tuple[int, ...]
TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)


def call(prompt: Tokens, completion: Tokens) -> ModelCall:
    logprobs = [-0.1 * (place + 1) for place in range(len(completion))]
    return model_call(prompt_token_ids=prompt, completion_token_ids=completion, logprobs=logprobs)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[list[ModelCall], int]:
    """Calls, each going on from the last one or not, and how many of them certainly begin afresh."""
    calls = [call(draw(TOKENS), draw(TOKENS))]
    afresh = 1
    for _ in range(draw(st.integers(0, 5))):
        before = calls[-1].prompt_token_ids + calls[-1].completion_token_ids
        if draw(st.booleans()):
            prompt = before + draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
        else:
            place = draw(st.integers(0, len(before) - 1))
            prompt = (*before[:place], before[place] + 10, *before[place + 1 :])
            afresh += 1
        calls.append(call(prompt, draw(TOKENS)))
    return calls, afresh


@given(episodes())
def test_every_completion_is_in_one_segment_where_it_was_drawn(episode: tuple[list[ModelCall], int]):
    calls, afresh = episode
    found = segments(calls)
    assert len(found) == afresh
    assert [one for segment in found for one in segment.calls] == calls
    for segment in found:
        assert len(segment.token_ids) == len(segment.sampled) == len(segment.logprobs)
        for one in segment.calls:
            first, end = len(one.prompt_token_ids), len(one.prompt_token_ids) + len(one.completion_token_ids)
            assert segment.token_ids[:end] == one.prompt_token_ids + one.completion_token_ids
            assert all(segment.sampled[first:end])
            assert segment.logprobs[first:end] == one.logprobs
        assert sum(segment.sampled) == sum(len(one.completion_token_ids) for one in segment.calls)
        assert all(
            logprob == 0
            for logprob, drawn in zip(segment.logprobs, segment.sampled, strict=True)
            if not drawn
        )


@given(episodes())
def test_a_segment_is_as_long_as_it_can_be(episode: tuple[list[ModelCall], int]):
    found = segments(episode[0])
    for earlier, later in itertools.pairwise(found):
        assert not continues(earlier.calls[-1], later.calls[0])


def test_a_prompt_that_is_shorter_than_what_was_before_goes_on_from_nothing():
    first = call((1, 2), (3, 4))
    assert not continues(first, call((1, 2, 3), (4,)))
    assert continues(first, call((1, 2, 3, 4), (5,)))


def test_of_no_calls_there_are_no_segments():
    assert segments([]) == []


@pytest.mark.parametrize(("prompt", "completion"), [((), ()), ((1,), ()), ((), (1,))])
def test_a_call_without_its_tokens_cannot_be_scored(prompt: Tokens, completion: Tokens):
    with pytest.raises(ValueError, match="without token ids"):
        segments([call((1,), (2,)), call(prompt, completion)])
