"""What is rolled out next: mostly what still teaches, without forgetting the rest."""

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.trainer import tiny  # noqa: F401  # quiets torch's import
from trainer.curriculum import Curriculum

TASKS, PROMPTS, GENERATIONS = 40, 4, 3


def curriculum(*, settled: tuple[int, ...] = (), tasks: int = TASKS, steps: int = 100) -> Curriculum:
    return Curriculum(tasks, settled=settled, prompts=PROMPTS, generations=GENERATIONS, steps=steps, seed=1)


def groups(indices: Iterator[int], number: int) -> list[int]:
    """The next `number` groups, each as its one task."""
    drawn = [set(itertools.islice(indices, GENERATIONS)) for _ in range(number)]
    assert all(len(group) == 1 for group in drawn)
    return [group.pop() for group in drawn]


def test_one_pass_holds_every_task_that_is_not_settled_once():
    assert sorted(groups(iter(curriculum()), TASKS)) == list(range(TASKS))


def test_what_was_learnt_by_heart_counts_as_settled_and_a_quarter_of_it_is_revisited():
    settled = tuple(range(20))
    drawn = Counter(index < 20 for index in groups(iter(curriculum(settled=settled)), 25))
    assert drawn == {False: 20, True: 5}


def test_a_task_that_was_solved_every_time_rests_and_one_that_failed_comes_back():
    made = curriculum()
    indices = iter(made)
    for index in groups(indices, TASKS):
        made.tell(index, [1.1, 1.1, 1.1] if index else [1.1, 0.1, 1.1])
    assert 0 in groups(indices, 1 + round((TASKS - 1) / 4))
    made.tell(5, [0.0, 1.1, 1.1])
    assert 5 in groups(indices, 2 + round((TASKS - 2) / 4))


def test_a_task_that_failed_every_time_or_was_never_scored_rests_too():
    made = curriculum()
    indices = iter(made)
    for index in groups(indices, TASKS):
        made.tell(index, [0.1, 0.1, 0.1] if index % 2 else [])
    assert len(set(groups(indices, TASKS // 4))) == TASKS // 4
    made.tell(7, [0.1, 0.0, 0.1])
    assert 7 in groups(indices, TASKS)


def test_when_all_is_settled_all_is_practised():
    made = curriculum(settled=(0, 1), tasks=2)
    assert set(groups(iter(made), 6)) == {0, 1}


def test_it_is_as_long_as_it_says_and_the_same_for_a_seed():
    made = curriculum(steps=7)
    assert len(list(made)) == len(made) == 7 * PROMPTS * GENERATIONS
    assert list(made) == list(made)


def test_there_must_be_tasks():
    with pytest.raises(ValueError, match="no tasks"):
        curriculum(tasks=0)


def test_one_group_in_six_is_of_the_steady_tasks_however_well_they_go():
    made = Curriculum(
        TASKS,
        settled=range(TASKS),
        steady=(3, 9),
        prompts=PROMPTS,
        generations=GENERATIONS,
        steps=100,
        seed=1,
    )
    made.tell(3, [1.1, 1.1])
    drawn = groups(iter(made), 48)
    assert Counter(drawn[::6]) == {3: 4, 9: 4}
    others = [index for number, index in enumerate(drawn) if number % 6]
    assert not {3, 9} & set(others)


def test_steady_tasks_alone_are_enough():
    made = Curriculum(2, steady=(0, 1), prompts=PROMPTS, generations=GENERATIONS, steps=1, seed=1)
    assert set(groups(iter(made), PROMPTS)) == {0, 1}
