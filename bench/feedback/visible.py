"""When readers of the store see what was written: asked of PostgreSQL itself, again and again."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import orjson
import psycopg
from sqlalchemy import make_url

_POLL_SECONDS = 0.02
_LONGEST_SECONDS = 120
_COUNT = """SELECT (SELECT count(*) FROM requests WHERE event_id >= %(first)s)
                 + (SELECT count(*) FROM ratings WHERE event_id >= %(first)s)"""


@contextmanager
def visible(url: str) -> Iterator[Callable[[Sequence[bytes]], None]]:
    """Returns when all of these events are there: the newest that there are. Raises `TimeoutError`."""
    with closing(psycopg.connect(libpq(url), autocommit=True)) as connection:

        def wait(events: Sequence[bytes]) -> None:
            first = {"first": orjson.loads(events[0])["event_id"]}
            deadline = time.monotonic() + _LONGEST_SECONDS
            while connection.execute(_COUNT, first).fetchone() != (len(events),):
                if time.monotonic() > deadline:
                    raise TimeoutError("not all events have reached the store")
                time.sleep(_POLL_SECONDS)

        yield wait


def libpq(url: str) -> str:
    """SQLAlchemy's URL as libpq writes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
