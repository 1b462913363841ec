import hashlib
import sqlite3
import threading
from datetime import datetime

import pytest
from sqlalchemy import text

from feedback.store import Deletions, Keys, Store, StoreError
from tests.contracts.samples import request
from tests.contracts.store import StoreContract, open_at_once


class TestSqliteStore(StoreContract):
    def test_what_was_written_is_there_when_it_is_opened_again(self, store, tmp_path):
        store.write([request()])
        store.close()
        again = Store.open(f"sqlite:///{tmp_path}/store.db")
        assert again.request("r1", "default") is not None
        again.close()

    def test_a_deletion_that_cannot_be_written_is_an_error_and_not_taken_for_an_old_one(self, store):
        with store.writing() as connection:
            connection.execute(text("DROP TABLE deleted_responses"))
        with pytest.raises(StoreError):
            Deletions(store).add("r1", tenant="a", by="ann")


def test_processes_that_open_a_new_store_at_once_all_succeed(tmp_path):
    open_at_once(f"sqlite:///{tmp_path}/new{n}.db" for n in range(8))


def test_a_commit_is_synced_to_the_disk(store):
    with store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_writer_waits_for_another_to_finish(store, tmp_path):
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = threading.Timer(0.2, other.execute, ["COMMIT"])
    waiting.start()
    store.write([request()])
    waiting.join()
    other.close()
    assert store.counts()["requests"] == 1


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"no database, but long enough to have a header of a hundred bytes" * 9)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(f"sqlite:///{tmp_path}/x.db")


def test_a_store_of_a_later_version_is_refused(store, tmp_path):
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="9999"):
        Store.open(f"sqlite:///{tmp_path}/store.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://here/there"])
def test_another_kind_of_database_is_refused_with_words_on_what_is_meant(url):
    with pytest.raises(ValueError, match="sqlite:///path"):
        Store.open(url)


def test_a_time_without_a_zone_is_refused(store):
    with pytest.raises(StoreError, match="no time zone"):
        list(store.requests(tenant="default", since=datetime(2026, 1, 1)))  # noqa: DTZ001  # the fault


def test_secrets_are_nowhere_in_the_file(store, tmp_path):
    secret = Keys(store).create("ann", ["chat"])
    store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in written
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in written
