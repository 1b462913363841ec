"""Who fails again and again is left alone, and is tried by one call first."""

from tools.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(failures=2, rest=10, clock=clock)
    for _ in range(2):
        assert breaker.enter() is None
        breaker.failed()
    return breaker


def test_it_opens_after_so_many_failures_in_a_row():
    breaker = Breaker(failures=2, rest=10, clock=Clock())
    for tell in (breaker.failed, breaker.succeeded, breaker.failed):
        assert breaker.enter() is None
        tell()
    assert breaker.enter() is None
    breaker.failed()
    assert breaker.enter() == 10


def test_after_its_rest_one_call_tries_and_the_others_wait_for_what_it_says():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 9
    assert breaker.enter() == 1
    clock.now += 1
    assert breaker.enter() is None
    assert breaker.enter() == 0
    breaker.succeeded()
    assert breaker.enter() is None
    assert breaker.enter() is None


def test_a_trial_that_fails_opens_it_again_at_once():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.enter() is None
    breaker.failed()
    assert breaker.enter() == 10


def test_a_trial_that_was_cancelled_leaves_it_to_the_next():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.enter() is None
    breaker.withdrawn()
    assert breaker.enter() is None
