"""Two instances of the database, shared: the questions only read them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from domains.insurance.database import build

SEEDS = (7, 11)


@pytest.fixture(scope="session")
def instances(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    folder: Path = tmp_path_factory.mktemp("insurance")
    for seed in SEEDS:
        build(folder / f"{seed}.db", seed)
    first, second = (sqlite3.connect(folder / f"{seed}.db") for seed in SEEDS)
    with closing(first), closing(second):
        yield first, second
