"""How long a client is ready to wait: a header, for models that take long and clients that cannot."""

import math

from gateway.errors import ApiError

TIMEOUT_HEADER = "x-request-timeout"  # seconds, as a decimal number


def requested_seconds(given: str | None) -> float | None:
    """The value of the header; None without it. Raises `ApiError` (400)."""
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{TIMEOUT_HEADER} is the longest time in seconds that the answer may take, e.g. 30."
        raise ApiError(400, message, code="invalid_value", param=TIMEOUT_HEADER)
    return seconds
