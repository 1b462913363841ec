"""The store's API keys, from the operator's side: at the machine, for every tenant."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from deploy import store
from deploy.errors import FlywheelError
from deploy.settings import Settings
from feedback.quota import Quota
from feedback.store import Key, Keys
from gateway.scopes import SCOPES

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def operator_key(settings: Settings) -> str:
    """The key in `var/key` (mode 0600), with every scope; a new one when there is none, or the store does not know it.

    A key that an earlier version made gets the scopes that there have come to be since.
    """
    with opened(settings) as keys:
        if settings.key_file.is_file():
            secret = settings.key_file.read_text().strip()
            key = keys.lookup(secret)
            if key is not None:
                if not key.scopes.issuperset(SCOPES):
                    keys.grant(secret, key.scopes.union(SCOPES))
                return secret
        secret = keys.create("operator", SCOPES, tenant=settings.gateway.operator_tenant)
    settings.key_file.parent.mkdir(parents=True, exist_ok=True)
    settings.key_file.unlink(missing_ok=True)
    with os.fdopen(os.open(settings.key_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(f"{secret}\n")
    return secret


def checked_scopes(wanted: Sequence[str], tenant: str, settings: Settings) -> Sequence[str]:
    """The scopes themselves, if there are such and this tenant's keys may have them. Raises `FlywheelError`."""
    if unknown := sorted(set(wanted) - set(SCOPES)):
        raise FlywheelError(f"there is no scope {', '.join(unknown)}: there are {', '.join(SCOPES)}")
    operators = settings.gateway.operator_tenant
    if "operate" in wanted and tenant != operators:
        raise FlywheelError(
            f"only keys of the tenant {operators} can have the scope operate, for all tenants share what is operated: "
            f"leave out --tenant, or change [gateway] operator_tenant"
        )
    return wanted


def expiry(text: str, now: datetime | None = None) -> datetime:
    """`90d`, `12h` or `30m` from now, or the beginning of a day in UTC. Raises `FlywheelError`."""
    now = now or datetime.now(UTC)
    try:
        if match := re.fullmatch(r"(\d{1,6})([mhd])", text):
            until = now + timedelta(**{_UNITS[match[2]]: int(match[1])})
        else:
            until = datetime.fromisoformat(text)
            until = until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FlywheelError(
            f"--expires {text}: write 90d, 12h or 30m, or a day like 2030-01-31: {error}"
        ) from error
    if until <= now:
        raise FlywheelError(f"--expires {text}: that time is over")
    return until


def quota(**limits: str | None) -> Quota:
    """The limits as they were written on the command line. Raises `FlywheelError`."""
    try:
        return Quota.model_validate(limits)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise FlywheelError(
            f"--{option} {first['input']}: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def limits_in_words(limits: Quota) -> list[str]:
    """Each limit that is said, e.g. `60 requests/minute`."""
    return [f"{value} {name.replace('_per_', '/')}" for name, value in limits.said().items()]


def state(key: Key) -> str:
    """Whether it can be used, and until when."""
    if key.revoked is not None:
        return f"revoked {key.revoked:%Y-%m-%d}"
    if key.expires is None:
        return "live"
    return f"{'expired' if key.expired(datetime.now(UTC)) else 'until'} {key.expires:%Y-%m-%d}"


@contextmanager
def opened(settings: Settings) -> Iterator[Keys]:
    """The keys of the store. Raises `FlywheelError` where the store fails."""
    with store.opened(settings) as opened_store:
        yield Keys(opened_store)
