"""Retention on SQLite, by its indexes."""

import pytest
from sqlalchemy import text

from tests.contracts.retention import RetentionContract


class TestRetentionOnPostgres(RetentionContract):
    @pytest.fixture
    def store(self, postgres_store):
        return postgres_store


class TestRetentionOnSqlite(RetentionContract):
    @pytest.mark.parametrize(
        ("query", "index"),
        [
            ("SELECT event_id FROM requests WHERE tenant = 'a' AND time < '2'", "requests_by_tenant_time"),
            ("SELECT event_id FROM ratings WHERE tenant = 'a' AND time < '2'", "ratings_by_"),
            ("SELECT digest FROM dead_letters WHERE time < '2'", "dead_letters_by_time"),
            ("SELECT min(tenant) FROM requests WHERE tenant > 'a'", "requests_by_"),
            (
                "SELECT request_id FROM requests WHERE tenant = 'a' AND caller = 'b' AND time <= '2'",
                "requests_by_caller",
            ),
            ("SELECT person FROM erasures WHERE tenant = 'a' AND person IN ('a', 'b')", "erasures_by_person"),
            (
                "SELECT 1 FROM erasures WHERE tenant = 'a' AND request_id IN ('a', 'b')",
                "erasures_by_request_id",
            ),
        ],
    )
    def test_what_is_looked_for_again_and_again_is_found_by_an_index(self, store, query, index):
        with store.reading() as connection:
            [plan] = connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
        assert index in plan.detail and "SEARCH" in plan.detail
