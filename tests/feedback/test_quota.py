"""Limits are what people write, and nothing else: a slip must not turn into no limit at all."""

import math

import pytest
from pydantic import ValidationError

from feedback.quota import Quota


def test_what_is_said_for_a_key_goes_before_the_default_and_unlimited_ends_it():
    default = Quota(requests_per_minute=60, tokens_per_day=1_000, money_per_month=5.0)
    own = Quota(requests_per_minute=600, tokens_per_day="unlimited")
    assert own.over(default) == Quota(
        requests_per_minute=600, tokens_per_day="unlimited", money_per_month=5.0
    )


def test_the_environment_writes_numbers_as_text():
    read = Quota.model_validate({"requests_per_minute": "60", "money_per_day": "0.5"})
    assert read == Quota(requests_per_minute=60, money_per_day=0.5)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "", "many", "٣x", 10**13, [], {}])
def test_what_is_no_count_is_refused(value: object):
    with pytest.raises(ValidationError, match="whole number"):
        Quota.model_validate({"tokens_per_minute": value})


@pytest.mark.parametrize("value", [0, -0.5, True, "", "free", math.inf, math.nan, 10**400, [], {}])
def test_what_is_no_amount_is_refused(value: object):
    with pytest.raises(ValidationError, match="amount above 0"):
        Quota.model_validate({"money_per_day": value})


def test_only_what_was_said_is_stored():
    quota = Quota(requests_per_minute=1, money_per_day="unlimited")
    assert quota.said() == {"requests_per_minute": 1, "money_per_day": "unlimited"}
    assert Quota.model_validate_json(quota.model_dump_json(exclude_none=True)) == quota
