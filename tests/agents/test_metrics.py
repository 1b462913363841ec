"""A metric takes what is of its type and in its range, and says in words what it wants."""

import pytest
from pydantic import ValidationError

from agents.metrics import DEFAULT_METRICS, LEVELS, Metric, Scale
from feedback.events import Scalar

BOOLEAN = Metric(type="boolean")
STARS = Metric(type="float", minimum=1, maximum=5)
MOOD = Metric(type="categorical", categories=("good", "bad"))


@pytest.mark.parametrize(
    ("metric", "value", "accepted"),
    [
        (BOOLEAN, True, True),
        (BOOLEAN, False, True),
        (BOOLEAN, 1, False),
        (BOOLEAN, "true", False),
        (BOOLEAN, None, False),
        (STARS, 1, True),
        (STARS, 5.0, True),
        (STARS, 0.99, False),
        (STARS, 5.01, False),
        (STARS, True, False),
        (STARS, "3", False),
        (STARS, float("nan"), False),
        (STARS, None, False),
        (MOOD, "good", True),
        (MOOD, "Good", False),
        (MOOD, True, False),
        (MOOD, None, False),
    ],
)
def test_a_metric_accepts_its_own_type_and_range(metric: Metric, value: Scalar, accepted: bool):
    assert metric.accepts(value) is accepted


def test_what_a_metric_expects_is_said_in_words():
    assert [metric.expectation() for metric in (BOOLEAN, STARS, MOOD)] == [
        "true or false",
        "a number from 1 to 5",
        "one of good, bad",
    ]


RUBRIC = Metric(
    type="rubric",
    parts={
        "polite": Scale(type="boolean"),
        "stars": Scale(type="float", minimum=1, maximum=5),
        "tone": Scale(type="categorical", categories=("formal", "plain")),
    },
)
RATED = {"polite": True, "stars": 4, "tone": "plain"}


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (RATED, True),
        ({**RATED, "stars": 6}, False),
        ({**RATED, "more": True}, False),
        ({"polite": True}, False),
        ({**RATED, "tone": {"polite": True}}, False),
        (True, False),
        (None, False),
    ],
)
def test_a_rubric_takes_each_of_its_parts_and_nothing_else(value: dict[str, object], accepted: bool):
    assert RUBRIC.accepts(value) is accepted


def test_no_other_metric_takes_parts():
    assert not BOOLEAN.accepts({"polite": True})


def test_a_rubric_says_what_each_part_expects():
    assert RUBRIC.expectation() == (
        "an object with exactly polite: true or false; stars: a number from 1 to 5; tone: one of formal, plain"
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "rubric"}, "needs parts"),
        ({"type": "boolean", "parts": {"a": {"type": "boolean"}}}, "only a rubric"),
        ({"type": "rubric", "parts": {"a": {"type": "float"}}}, "minimum and maximum"),
        ({"type": "rubric", "minimum": 1, "parts": {"a": {"type": "boolean"}}}, "in its parts only"),
        ({"type": "rubric", "parts": {"a": {"type": "rubric"}}}, "boolean"),
        ({"type": "boolean", "level": "step"}, "level"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(fields: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        Metric.model_validate(fields)


def test_what_no_manifest_speaks_for_can_be_rated_at_every_level():
    assert sorted(metric.level for metric in DEFAULT_METRICS.values()) == sorted(LEVELS)
    assert BOOLEAN.level == "request"
