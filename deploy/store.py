"""The store that the settings name, opened from the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url

from deploy.errors import FlywheelError
from deploy.settings import Settings
from feedback.store import Store, StoreError


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The store, brought up to date. Raises `FlywheelError` where it does not open, or fails later."""
    try:
        store = Store.open(settings.feedback.store_url)
    except (StoreError, ValueError, OSError) as error:
        raise FlywheelError(f"the store does not open: {error}; {mend(settings)}") from error
    try:
        yield store
    except StoreError as error:
        raise FlywheelError(f"the store failed: {error}") from error
    finally:
        store.close()


def mend(settings: Settings) -> str:
    """What to do when it does not open."""
    if settings.local_mark.is_file():
        return "start it with `flywheel up --kafka`, or go back to a file with `flywheel up`"
    return "see [feedback] store_url"


def shown(settings: Settings) -> str:
    """Its URL without its password."""
    return make_url(settings.feedback.store_url).render_as_string(hide_password=True)
