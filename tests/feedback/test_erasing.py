"""Erasure on SQLite, down to the bytes of its files."""

import random
import re
import sqlite3
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.store import DeadLetter, StoreError
from feedback.store.admitting import admit
from feedback.store.erasing import names_of
from feedback.store.insert import insert_new
from feedback.store.tables import requests
from tests.contracts.erasures import ErasureContract, asked, erased, left
from tests.contracts.samples import at, rating, request


class TestErasureOnSqlite(ErasureContract):
    pass


class TestErasureOnPostgres(ErasureContract):
    @pytest.fixture
    def store(self, postgres_store):
        return postgres_store

    def test_a_request_that_is_being_written_while_its_caller_is_erased_does_not_escape(self, store):
        writing, erasing = threading.Event(), threading.Event()

        def write():
            with store.writing() as connection:
                admit(connection, [asked()], [])
                writing.set()
                erasing.wait(
                    0.3
                )  # the erasure waits for this transaction: it has come, or cannot be let come
                insert_new(connection, requests, [row_of(asked())])

        thread = threading.Thread(target=write)
        thread.start()
        writing.wait()
        store.write([erased()])
        erasing.set()
        thread.join()
        assert left(store) == []


def row_of(event):
    columns = {column.name: getattr(event, column.name, None) for column in requests.columns}
    return tuple((columns | {"payload": event.model_dump_json()}).values())


@given(st.lists(st.text("ab", max_size=2), min_size=1, max_size=4).map("/".join))
def test_a_rater_is_meant_by_itself_by_what_it_begins_with_and_by_what_follows_the_owner(rater):
    names = names_of(rater)
    assert all(
        rater == name or rater.startswith(f"{name}/") or rater.partition("/")[2] == name for name in names
    )
    assert "" not in names and (not rater or rater in names)


def test_on_sqlite_not_a_byte_is_left_in_the_files_of_the_store(store, tmp_path):
    """Rows of every size, between others', written and moved by SQLite many times: free pages and the log too."""
    noise = random.Random(0)
    names = {"ann": "ANNS-WORDS", "bob": "BOBS-WORDS"}
    for batch in range(30):
        events = []
        for _ in range(20):
            caller = noise.choice(sorted(names))
            words = names[caller] * noise.choice([1, 20, 200, 2_000])
            name = f"{caller}s-request-{noise.getrandbits(64):x}"
            events += [
                request(name, question=words, caller=caller, time=at(batch), calls=()),
                rating(name, rater=f"crm/{caller}", comment=words, time=at(batch)),
            ]
            noise.shuffle(events)
        store.write(events, [DeadLetter(events[0].model_dump_json().encode()[:-1], "cut")])
    store.write([erased("crm/ann"), erased("ann", reason="")])
    assert store.scrub() and not store.scrub()
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"BOBS-WORDS" in found and b"bobs-request-" in found
    assert b"ANNS-WORDS" not in found and b"anns-request-" not in found
    with store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM erasures")  # the only place that names the person
    store.write([erased("somebody else")])
    assert store.scrub()
    assert not re.search(
        rb"(?<![a-z])ann(?![a-z])", b"".join(path.read_bytes() for path in tmp_path.iterdir())
    )


def test_a_store_that_is_being_read_is_scrubbed_later(store, tmp_path):
    store.write([asked(), erased()])
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM requests").fetchall()
        with store.reading() as connection:
            connection.connection.driver_connection.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(StoreError, match="later"):
            store.scrub()
        other.execute("ROLLBACK")
    assert store.scrub()
