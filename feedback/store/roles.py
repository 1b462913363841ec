"""Who else may read the store: roles of PostgreSQL for people who analyse what is in it."""

import re
from typing import TYPE_CHECKING

from feedback.store.store import Store

if TYPE_CHECKING:
    import psycopg  # installed where a store is on PostgreSQL

READABLE = ("requests", "ratings", "policy_changes")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_MINUTES = 10  # for one of its statements


def grant_reading(store: Store, role: str, password: str) -> None:
    """Make a role that may log in and read `READABLE`, of every tenant, and nothing else that is in the store.

    The store's own user needs CREATEROLE and must own the database. The server hears a hash of the password, so that it
    shows in no log. Raises `ValueError` for a store that is not on PostgreSQL and for a name that cannot be a role's,
    `StoreError` also where there is such a role already.
    """
    if not _NAME.fullmatch(role):
        raise ValueError(f"{role} cannot be the name of a role: a-z, 0-9 and _, at most 63, no digit first")
    with store.writing() as connection:
        if connection.dialect.name != "postgresql":
            raise ValueError("SQLite knows no roles: who may read the file reads everything in it")
        raw: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # by the dialect
        from psycopg import sql  # noqa: PLC0415  # see above

        verifier = raw.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        names = {
            "role": sql.Identifier(role),
            "password": sql.Literal(verifier),
            "database": sql.Identifier(raw.info.dbname),
            "schema": sql.Identifier(str(connection.dialect.default_schema_name)),
            "tables": sql.SQL(", ").join(map(sql.Identifier, READABLE)),
        }
        for statement in (
            "CREATE ROLE {role} LOGIN PASSWORD {password}",
            "ALTER ROLE {role} SET default_transaction_read_only = on",
            f"ALTER ROLE {{role}} SET statement_timeout = '{_MINUTES}min'",
            "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC",  # before version 15, everybody may make tables in it
            "GRANT CONNECT ON DATABASE {database} TO {role}",
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT SELECT ON {tables} TO {role}",
        ):
            raw.execute(sql.SQL(statement).format(**names))
