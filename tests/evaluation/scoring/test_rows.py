"""Which results hold which."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring.rows import Rows, holds

CELL = st.one_of(
    st.none(), st.integers(-3, 3), st.sampled_from(["a", "b", ""]), st.floats(-2, 2, allow_nan=False)
)
TABLE = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[CELL] * width), min_size=1, max_size=6))


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ([(1, "x")], [("x",)], True),  # an extra column
        ([("x",)], [(1, "x")], False),  # one too few
        ([("x", 1)], [(1, "x")], True),  # in another order
        ([(3.0,)], [(3,)], True),
        ([(0.333333333,)], [(0.33333,)], True),
        ([(0.334,)], [(0.333,)], False),
        ([("3",)], [(3,)], False),
        ([(None,)], [(0,)], False),
        ([(2,), (1,)], [(1,), (2,)], True),
        ([(1,), (1,)], [(1,)], False),  # each row as often
        ([(1, 2), (2, 1)], [(1, 1), (2, 2)], False),  # the columns have the same values, the rows have not
        ([(1, 2), (2, 1)], [(1, 2), (2, 1)], True),
        ([(1, 5, 1), (2, 6, 2)], [(1, 1), (2, 2)], True),  # each column has one of its own
        ([(1, 5), (2, 6)], [(1, 1), (2, 2)], False),
        ([], [], True),
        ([], [(1,)], False),
    ],
)
def test_the_golds_columns_must_be_among_the_answers(answer: Rows, gold: Rows, same: bool):
    assert holds(answer, gold, ordered=False) is same


@given(TABLE, st.randoms(use_true_random=False))
def test_more_columns_in_another_order_and_shuffled_rows_change_nothing_where_no_order_is_asked(
    gold: list[tuple[object, ...]], generator: random.Random
):
    order = list(range(len(gold[0]) + 1))
    generator.shuffle(order)
    answer = [tuple((*row, number)[place] for place in order) for number, row in enumerate(gold)]
    assert holds(answer, gold, ordered=True)
    generator.shuffle(answer)
    assert holds(answer, gold, ordered=False)


@given(TABLE)
def test_a_row_more_or_a_row_less_is_another_result(gold: list[tuple[object, ...]]):
    for ordered in (True, False):
        assert not holds([*gold, gold[0]], gold, ordered=ordered)
        assert not holds(gold[1:], gold, ordered=ordered)


def test_the_order_counts_only_where_it_is_asked_for():
    gold = [("a", 1), ("b", 2)]
    assert holds(gold[::-1], gold, ordered=False)
    assert not holds(gold[::-1], gold, ordered=True)


def test_many_columns_that_look_alike_take_no_time_without_end():
    wide = [tuple(range(12)), tuple(reversed(range(12)))] * 2
    gold = [tuple(random.Random(row).sample(range(12), 12)) for row in range(4)]
    assert not holds([*wide], gold, ordered=False)
