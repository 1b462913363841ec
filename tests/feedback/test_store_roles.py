"""What an analyst may do, tried as one on a real server."""

import uuid

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import make_url

from feedback.store import DeadLetter, Keys, StoreError
from feedback.store.roles import READABLE, grant_reading
from feedback.store.tables import metadata
from tests.contracts.samples import change, rating, request
from tests.servers import libpq


@pytest.fixture
def role(postgres_store):
    """The name of a role that nobody has yet; roles are the whole server's."""
    name = f"analyst_{uuid.uuid4().hex}"
    yield name
    with postgres_store.writing() as connection:
        if connection.exec_driver_sql(f"SELECT to_regrole('{name}')").scalar_one():
            connection.exec_driver_sql(f"DROP OWNED BY {name}")
            connection.exec_driver_sql(f"DROP ROLE {name}")


@pytest.fixture
def analyst(postgres_store, postgres_store_url, role):
    """A connection of the analyst's own."""
    grant_reading(postgres_store, role, "sesame")
    postgres_store.write([request(), rating(), change("p", "active")], [DeadLetter(b"x", "y")])
    Keys(postgres_store).create("ann", [])
    url = make_url(postgres_store_url).set(username=role, password="sesame")
    with psycopg.connect(libpq(url.render_as_string(hide_password=False)), autocommit=True) as connection:
        yield connection


def test_an_analyst_reads_what_was_asked_and_rated_and_changed(analyst):
    for table in READABLE:
        assert analyst.execute(f"SELECT COUNT(*) FROM {table} WHERE payload <> ''").fetchone() == (1,)


def test_an_analyst_reads_nothing_else(analyst):
    for table in {*metadata.tables, "alembic_version"} - {*READABLE}:
        with pytest.raises(errors.InsufficientPrivilege, match=table):
            analyst.execute(f"SELECT COUNT(*) FROM {table}")


def test_an_analyst_changes_nothing_even_when_it_says_that_it_will(analyst):
    analyst.execute("SET default_transaction_read_only = off")
    for statement in (
        "DELETE FROM ratings",
        "UPDATE requests SET payload = ''",
        "INSERT INTO ratings SELECT * FROM ratings",
        "TRUNCATE ratings",
        "DROP TABLE ratings",
        "CREATE TABLE mine (n int)",
        "CREATE ROLE other",
        "COPY ratings TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            analyst.execute(statement)


def test_the_server_is_not_told_the_password(analyst, postgres_store, role):
    with postgres_store.reading() as connection:
        kept = connection.exec_driver_sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
        assert kept.scalar_one().startswith("SCRAM-SHA-256$")


@pytest.mark.usefixtures("analyst")
def test_a_role_that_is_there_is_left_as_it_is(postgres_store, role):
    with pytest.raises(StoreError, match="already exists"):
        grant_reading(postgres_store, role, "another")


@pytest.mark.parametrize("name", ["", "Ann", "1a", 'a"; DROP TABLE ratings; --', "a" * 64])
def test_what_is_no_name_is_refused(postgres_store, name):
    with pytest.raises(ValueError, match="cannot be the name of a role"):
        grant_reading(postgres_store, name, "x")


def test_sqlite_has_no_analysts(store):
    with pytest.raises(ValueError, match="SQLite knows no roles"):
        grant_reading(store, "ann", "x")
