"""The store's API keys, from the operator's side: keys are made where the database is, never over the network."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.errors import FlywheelError
from deploy.settings import Settings
from feedback.store import Keys, Store, StoreError

OPERATOR_SCOPES = ("invoke", "rate", "operate")


def operator_key(settings: Settings) -> str:
    """The key in `var/key` (mode 0600); a new one when there is none, or the store does not know it."""
    with opened(settings) as keys:
        if settings.key_file.is_file():
            secret = settings.key_file.read_text().strip()
            if keys.lookup(secret) is not None:
                return secret
        secret = keys.create("operator", OPERATOR_SCOPES)
    settings.key_file.parent.mkdir(parents=True, exist_ok=True)
    settings.key_file.unlink(missing_ok=True)
    with os.fdopen(os.open(settings.key_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(f"{secret}\n")
    return secret


@contextmanager
def opened(settings: Settings) -> Iterator[Keys]:
    """The keys of the store. Raises `FlywheelError` where the store fails."""
    try:
        store = Store.open(settings.feedback.store_url)
    except (StoreError, ValueError, OSError) as error:
        raise FlywheelError(f"the store does not open: {error}; see [feedback] store_url") from error
    try:
        yield Keys(store)
    except StoreError as error:
        raise FlywheelError(f"the store failed: {error}") from error
    finally:
        store.close()
