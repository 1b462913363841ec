"""Clients read OpenAI's headers, so ours are written exactly so."""

import pytest

from gateway.limits.answers import duration, headers
from gateway.limits.rates import Rate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.0121, "13ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (8.64, "8.64s"),
        (60, "1m0s"),
        (72.25, "1m12.25s"),
        (360, "6m0s"),
        (3_600, "1h0m0s"),
        (86_400, "24h0m0s"),
        (59.9999, "1m0s"),
    ],
)
def test_durations_are_written_as_go_does(seconds: float, text: str):
    assert duration(seconds) == text


def test_after_one_of_5000_a_minute_4999_are_left_and_the_bucket_is_full_in_12_ms():
    rate = Rate("r", "requests", 5_000, "key")
    assert headers([rate], [60 / 5_000]) == (
        (b"x-ratelimit-limit-requests", b"5000"),
        (b"x-ratelimit-remaining-requests", b"4999"),
        (b"x-ratelimit-reset-requests", b"12ms"),
    )


def test_of_a_key_and_its_tenant_the_scarcer_is_told():
    key, tenant = Rate("k", "tokens", 100, "key"), Rate("t", "tokens", 1_000, "tenant")
    assert (b"x-ratelimit-limit-tokens", b"1000") in headers([key, tenant], [0.6, 59.4])
    assert (b"x-ratelimit-limit-tokens", b"100") in headers([key, tenant], [0.6, 6])
