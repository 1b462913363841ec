"""How sure a figure is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.statistics import paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_proportion_is_that_of_the_literature(
    successes: int, n: int, low: float, high: float
):
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_nothing_is_known_from_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_proportion_stays_in_0_to_1_and_mirrors(counts: tuple[int, int]):
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))


def outcomes(seed: int, n: int, rate: float) -> list[bool]:
    generator = random.Random(seed)
    return [generator.random() < rate for _ in range(n)]


def test_the_difference_of_equals_is_zero_without_doubt():
    ours = outcomes(1, 80, 0.5)
    assert paired_difference(ours, ours, [str(i) for i in range(80)]) == (0, 0, 0)


def test_the_interval_of_two_that_are_equally_good_holds_zero_and_of_a_clear_win_does_not():
    one, other = outcomes(1, 200, 0.5), outcomes(2, 200, 0.5)
    clusters = [str(i // 4) for i in range(200)]
    difference, low, high = paired_difference(one, other, clusters)
    assert low < 0 < high
    assert low <= difference <= high
    difference, low, high = paired_difference(outcomes(1, 200, 0.8), other, clusters)
    assert 0 < low <= difference <= high < 1


def test_swapping_the_two_turns_the_sign():
    one, other = outcomes(1, 60, 0.7), outcomes(2, 60, 0.5)
    clusters = [str(i) for i in range(60)]
    forth, low, high = paired_difference(one, other, clusters)
    back, *_ = paired_difference(other, one, clusters)
    assert forth == -back
    assert low < forth < high


def test_the_same_reports_give_the_same_interval():
    one, other = outcomes(1, 60, 0.7), outcomes(2, 60, 0.5)
    clusters = [str(i % 7) for i in range(60)]
    assert paired_difference(one, other, clusters) == paired_difference(one, other, clusters)


def test_questions_that_stand_and_fall_together_make_a_figure_less_sure():
    wins = [True] * 10 + [False] * 10  # ten questions of one template are won by us, ten of another by them
    losses = [not win for win in wins]
    _, low, high = paired_difference(wins, losses, [str(i) for i in range(20)])
    _, clustered_low, clustered_high = paired_difference(wins, losses, ["a"] * 10 + ["b"] * 10)
    assert clustered_high - clustered_low > high - low


def test_two_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_difference([True], [True, False], ["a", "b"])
