import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

from feedback.sqlite import prepare


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path):
    """SQLite itself tells one of them "database is locked", in about one of thirty races."""
    together = threading.Barrier(4)

    def open_each(_):
        for n in range(60):
            together.wait(5)
            connection = sqlite3.connect(tmp_path / f"{n}.db", check_same_thread=False)
            prepare(connection)
            connection.close()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(open_each, range(4))) == [True] * 4
