"""Connections to PostgreSQL on which nobody waits for a server that has stopped.

A server that is frozen, as its machine may be, keeps its sockets open, and what is sent there arrives: no time limit of
its own, of TCP or of libpq ends the wait for its answer. So where an answer takes long, the server is asked for another
connection. One that is only busy gives it, or refuses it, at once.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import ConnectionTimeout

_SILENT_SECONDS = 5.0  # after which it is asked, and then again
_ANSWER_SECONDS = 2  # libpq's least
_PAUSE_SECONDS = 2.0  # in which nobody tries a server that has just not answered: all would queue up for it

RV = TypeVar("RV")


class Watched(psycopg.Connection[Any]):
    """Raises `psycopg.OperationalError`, and is closed, where the server does not answer any more."""

    another: Callable[[], psycopg.Connection[Any]]  # opens one to the same server; set by `Opener`

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See `psycopg.Connection`, which waits here for every answer."""
        return super().wait(self._heard(gen), interval, timeout)

    def _heard(self, gen: PQGen[RV]) -> PQGen[RV]:
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENT_SECONDS:
                    self._ask()
                    heard = time.monotonic()
                wanted = gen.send(ready)
        except StopIteration as end:
            value: RV = end.value
            return value

    def _ask(self) -> None:
        try:
            self.another().close()
        except ConnectionTimeout as error:
            self.close()
            raise psycopg.OperationalError("the server has stopped answering") from error
        except psycopg.OperationalError:  # a refusal is an answer; that it is gone, our own connection hears
            return


class Opener:
    """Opens connections to one server, from any thread."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def connect(self, **told: Any) -> Watched:
        """See `psycopg.Connection.connect`. Raises `psycopg.OperationalError`."""
        connection = self._opened(told)
        connection.another = lambda: self._opened({**told, "connect_timeout": _ANSWER_SECONDS})
        return connection

    def _opened(self, told: dict[str, Any]) -> Watched:
        if time.monotonic() < self._silent_until:
            raise ConnectionTimeout("the server has stopped answering")
        try:
            return Watched.connect(**told)
        except ConnectionTimeout:
            self._silent_until = time.monotonic() + _PAUSE_SECONDS
            raise
