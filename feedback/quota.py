"""How much a key or a tenant may use: the limits that are kept with a key, and those that a configuration gives.

What is left out is decided elsewhere: a key's own value, else the configuration's, else there is no limit.
"""

import math
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, PlainValidator

UNLIMITED: Final = "unlimited"
_MOST_COUNT, _MOST_MONEY = 10**12, 10**9


def _count(value: Any) -> Any:
    """Digits are read as a number, for the environment has no other type."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number is None or number == UNLIMITED:
        return number
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= _MOST_COUNT:
        return number
    raise ValueError(f'expected a whole number from 1 to {_MOST_COUNT}, or "{UNLIMITED}"')


def _money(value: Any) -> Any:
    if value is None or value == UNLIMITED:
        return value
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if 0 < number <= _MOST_MONEY:
        return number
    raise ValueError(f'expected an amount above 0, at most {_MOST_MONEY}, or "{UNLIMITED}"')


CountLimit = Annotated[int | Literal["unlimited"] | None, PlainValidator(_count)]
MoneyLimit = Annotated[float | Literal["unlimited"] | None, PlainValidator(_money)]


class Quota(BaseModel):
    """Rates and budgets. None: not said here; `unlimited`: no limit, whatever a default says.

    Days and months are those of UTC. Money is in the currency in which the prices are configured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: CountLimit = None
    tokens_per_minute: CountLimit = None
    tokens_per_day: CountLimit = None
    tokens_per_month: CountLimit = None
    money_per_day: MoneyLimit = None
    money_per_month: MoneyLimit = None

    def over(self, default: "Quota") -> "Quota":
        """What holds where this has been said over a default."""
        return default.model_copy(update=self.said())

    def said(self) -> dict[str, Any]:
        """The limits that are given, by name, as JSON has them."""
        return self.model_dump(exclude_none=True)
