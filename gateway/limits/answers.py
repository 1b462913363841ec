"""What a client is told of its limits: OpenAI's headers, and OpenAI's 429.

https://platform.openai.com/docs/guides/rate-limits and /docs/guides/error-codes
"""

import math
from collections.abc import Sequence

from gateway.errors import ApiError
from gateway.limits.budgets import Overdrawn
from gateway.limits.rates import Rate, Taken, Unit

Pairs = tuple[tuple[bytes, bytes], ...]


def duration(seconds: float) -> str:
    """As Go writes one, and so OpenAI: `12ms`, `1s`, `1.5s`, `6m0s`, `1h0m0s`. Rounded up to a millisecond."""
    milliseconds = math.ceil(round(seconds * 1_000, 3))
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1_000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest // 1_000}.{rest % 1_000:03}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def headers(rates: Sequence[Rate], full_in: Sequence[float]) -> Pairs:
    """Limit, remaining and reset, for requests and for tokens; where a key and its tenant are limited, the scarcer."""
    scarcest: dict[Unit, tuple[int, Rate, float]] = {}
    for rate, seconds in zip(rates, full_in, strict=True):
        left = rate.remaining(seconds)
        if rate.unit not in scarcest or left < scarcest[rate.unit][0]:
            scarcest[rate.unit] = (left, rate, seconds)
    pairs: list[tuple[bytes, bytes]] = []
    for unit, (left, rate, seconds) in scarcest.items():
        name = unit.encode()
        pairs += (
            (b"x-ratelimit-limit-" + name, b"%d" % rate.limit),
            (b"x-ratelimit-remaining-" + name, b"%d" % left),
            (b"x-ratelimit-reset-" + name, duration(seconds).encode()),
        )
    return tuple(pairs)


def too_fast(rates: Sequence[Rate], costs: Sequence[int], taken: Taken) -> ApiError:
    """What is said to a request for which a rate has not enough left."""
    assert taken.refused is not None
    rate, cost = rates[taken.refused], costs[taken.refused]
    told = {name.decode(): value.decode() for name, value in headers(rates, taken.full_in)}
    left = rate.remaining(taken.full_in[taken.refused])
    state = f"limit {rate.limit}, left {left}, requested {cost}"
    if cost > rate.limit:
        message = (
            f"Request too large for the {rate.unit} per minute of this {rate.whose}: {state}. It can never pass: "
            "shorten the input or lower the number of tokens to generate."
        )
        told["x-should-retry"] = "false"  # OpenAI's clients would try twice more
        return ApiError(429, message, code="rate_limit_exceeded", kind=rate.unit, headers=told)
    message = (
        f"Rate limit reached for the {rate.unit} per minute of this {rate.whose}: {state}. "
        f"Retry in {duration(taken.wait)}."
    )
    return ApiError(
        429,
        message,
        code="rate_limit_exceeded",
        kind=rate.unit,
        retry_after=max(1, math.ceil(taken.wait)),
        headers=told,
    )


def overdrawn(found: Overdrawn) -> ApiError:
    """What is said to a request for which a budget has not enough left."""
    budget, money = found.budget, found.unit == "money"
    limit = budget.money if money else budget.tokens
    assert limit is not None
    amounts = [f"{x / 1e6:.2f}" if money else str(x) for x in (limit, found.left)]
    message = (
        f"The {budget.whose} has used up its budget of {amounts[0]}{'' if money else ' tokens'} a {budget.period}: "
        f"{amounts[1]} left, which this request may exceed. Ask an administrator for more, or wait for the next "
        f"{budget.period} (UTC)."
    )
    return ApiError(
        429,
        message,
        code="insufficient_quota",
        kind="insufficient_quota",
        retry_after=max(1, math.ceil(found.seconds)),
        headers={"x-should-retry": "false"},
    )
