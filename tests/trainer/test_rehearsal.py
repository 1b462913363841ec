"""What is imitated again, and when."""

from trainer.rehearsal import Demonstration, Rehearsal

KNOWN: list[Demonstration] = [([n], [n]) for n in range(5)]


def test_every_demonstration_is_rehearsed_in_turn() -> None:
    rehearsal = Rehearsal(KNOWN, demonstrated=2, replayed=0, seed=1)
    steps = [rehearsal.draw() for _ in range(10)]
    assert all(len(step) == 2 and step[0] != step[1] for step in steps)
    counts = [sum(step.count(one) for step in steps) for one in KNOWN]
    assert counts == [4] * 5


def test_a_kept_success_is_replayed_until_it_is_dropped() -> None:
    rehearsal = Rehearsal(KNOWN, demonstrated=1, replayed=2, seed=1)
    assert len(rehearsal.draw()) == 1
    first, better, other = ([10], [11]), ([10], [12]), ([20], [21])
    rehearsal.keep("task", first)
    rehearsal.keep("task", better)
    assert rehearsal.draw()[1:] == [better]
    rehearsal.keep("other", other)
    for _ in range(5):
        assert sorted(rehearsal.draw()[1:]) == [better, other]
    rehearsal.drop("task")
    rehearsal.drop("unknown")
    for _ in range(5):
        assert rehearsal.draw()[1:] == [other]


def test_without_anything_known_nothing_is_drawn() -> None:
    assert Rehearsal([], demonstrated=4, replayed=4, seed=0).draw() == []
