from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.events import PolicyState
from feedback.policies import TRANSITIONS, PolicyTransitionError, active, previous_active, project, transition
from tests.contracts.samples import at, change


def after(*changes):
    return project([change(policy, state, minute) for minute, (policy, state) in enumerate(changes)])


def name(status):
    return None if status is None else status.policy


def test_the_table_has_every_state_and_only_states():
    states = set(get_args(PolicyState))
    assert set(TRANSITIONS) == states | {None}
    assert set().union(*TRANSITIONS.values()) <= states


@pytest.mark.parametrize(
    "way",
    [
        ["candidate", "evaluated", "canary", "active", "retired", "active"],
        ["candidate", "evaluated", "active", "rolled_back", "active"],
        ["candidate", "rejected"],
        ["candidate", "evaluated", "evaluated", "rejected"],
        ["candidate", "evaluated", "canary", "rolled_back"],
    ],
)
def test_a_policy_may_go_this_way(way):
    current = None
    for state in way:
        current = transition(current, state)
    assert current == way[-1]


@pytest.mark.parametrize(
    ("current", "new", "words"),
    [
        ("candidate", "active", "can only become evaluated, rejected"),
        ("rejected", "active", "stays so"),
        (None, "active", "can only become candidate"),
        (None, "canary", "not registered"),
        ("active", "candidate", "can only become retired, rolled_back"),
    ],
)
def test_another_way_is_refused_with_words_on_what_is_allowed(current, new, words):
    with pytest.raises(PolicyTransitionError, match=words):
        transition(current, new)


def test_only_a_base_model_may_be_active_from_the_start():
    assert transition(None, "active", base=True) == "active"


def test_nothing_is_active_before_the_first():
    assert active({}) is None
    assert previous_active({}) is None


def test_a_promotion_retires_the_policy_before_it_in_one_event():
    statuses = after(("base", "active"), ("a", "candidate"), ("a", "evaluated"), ("a", "active"))
    assert name(active(statuses)) == "a"
    assert (statuses["base"].state, statuses["base"].since) == ("retired", at(3))
    assert name(previous_active(statuses)) == "base"


@pytest.mark.parametrize("order", [["rolled_back", "active"], ["active", "rolled_back"]])
def test_a_roll_back_may_say_either_half_first(order):
    halves = {"rolled_back": ("b", "rolled_back"), "active": ("a", "active")}
    statuses = after(("base", "active"), ("a", "active"), ("b", "active"), *(halves[half] for half in order))
    assert name(active(statuses)) == "a"
    assert statuses["b"].state == "rolled_back"


def test_a_roll_back_goes_past_what_was_rolled_back_itself():
    statuses = after(
        ("base", "active"), ("a", "active"), ("b", "active"), ("b", "rolled_back"), ("a", "active")
    )
    assert name(previous_active(statuses)) == "base"


def test_after_a_policy_was_rolled_back_the_one_to_go_back_to_is_known_still():
    statuses = after(("base", "active"), ("a", "active"), ("a", "rolled_back"))
    assert active(statuses) is None
    assert name(previous_active(statuses)) == "base"


def test_the_path_is_remembered_from_the_event_that_said_it():
    events = [change("a", "candidate", path="/a"), change("a", "evaluated"), change("a", "active")]
    assert project(events)["a"].path == "/a"


def test_events_of_two_agents_are_not_one_projection():
    with pytest.raises(ValueError, match="together"):
        project([change("a", "active"), change("b", "active", agent="other")])


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(get_args(PolicyState))), max_size=15))
@settings(max_examples=100, deadline=None)
def test_whatever_happened_at_most_one_policy_is_active(changes):
    statuses = after(*changes)
    assert sum(status.state == "active" for status in statuses.values()) <= 1
    assert sum(len(status.history) for status in statuses.values()) == len(changes)
