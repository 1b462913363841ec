"""With 100,000 requests and as many ratings, no read walks through all of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import event, text

from feedback.store import Filter, Ratings, Store
from tests.contracts.samples import EPOCH, rating, request
from tests.servers import database

ROWS = 100_000
_FILLED = {
    "requests": """
        INSERT INTO requests
            (event_id, tenant, time, request_id, episode_id, agent, policy, caller, status, payload)
        SELECT 'q' || n, 't' || (n % 2), {time}, 'r' || n, 'e' || (n / 4), 'a' || (n % 3),
            'p', 'c', 'completed', :payload
        FROM numbers""",
    "ratings": """
        INSERT INTO ratings (event_id, tenant, time, request_id, episode_id, rater, name, source, withdrawn, payload)
        SELECT 's' || n, 't' || (n % 2), {time}, 'r' || n, 'e' || (n / 4), 'ann', 'correct', 'api', false, :payload
        FROM numbers""",
}
_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)"
_TIME = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S', 1767225600 + n, 'unixepoch') || '.000000'",
    "postgresql": "to_timestamp(1767225600 + n)",
}
MIDDLE = EPOCH + timedelta(seconds=ROWS // 2)
READS = {
    "a request": lambda store: store.request("r70", "t0"),
    "an agent's requests": lambda store: next(store.requests("a1", tenant="t0", since=MIDDLE)),
    "all requests of a tenant": lambda store: next(store.requests(tenant="t0", since=MIDDLE)),
    "an episode's requests": lambda store: next(store.requests(tenant="t0", episode_id="e70")),
    "the newest of an episode": lambda store: store.newest("t0", episode_id="e70"),
    "what is thought of a request": lambda store: list(store.current_ratings(tenant="t0", request_id="r70")),
    "a page of ratings": lambda store: Ratings(store).page(Filter(), tenant="t0", limit=20),
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def large(request, tmp_path_factory) -> Iterator[Store]:
    if request.param == "sqlite":
        store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('large')}/store.db")
        yield _filled(store, "sqlite")
        store.close()
        return
    with database(request.getfixturevalue("postgres_url")) as url:
        store = Store.open(url)
        yield _filled(store, "postgresql")
        store.close()


def _filled(store: Store, dialect: str) -> Store:
    payloads = {"requests": request(calls=()), "ratings": rating()}
    with store.writing() as connection:
        for table, insert in _FILLED.items():
            rows = text(_NUMBERS + insert.format(time=_TIME[dialect]))
            connection.execute(rows, {"rows": ROWS, "payload": payloads[table].model_dump_json()})
        connection.execute(text("ANALYZE"))
    return store


@contextmanager
def _plans(store: Store) -> Iterator[list[str]]:
    """How the database does what it is asked meanwhile."""
    plans: list[str] = []

    def explain(connection, cursor, statement, parameters, context, executemany):
        if not statement.startswith("SELECT"):
            return
        how = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        cursor.execute(f"{how} {statement}", parameters)
        plans.append("\n".join(str(row[-1]) for row in cursor.fetchall()))

    event.listen(store._engine, "before_cursor_execute", explain)
    yield plans
    event.remove(store._engine, "before_cursor_execute", explain)


@pytest.mark.parametrize("read", READS)
def test_a_read_follows_an_index(large: Store, read: str):
    with _plans(large) as plans:
        assert READS[read](large)
    assert plans
    for plan in plans:
        assert re.search(r"Index (Only )?Scan|INDEX", plan), plan
        assert not re.search(r"Seq Scan|SCAN (requests|ratings)", plan), plan
        assert read != "all requests of a tenant" or not re.search(
            r"^ *(->  )?Sort|B-TREE FOR ORDER", plan
        ), plan
