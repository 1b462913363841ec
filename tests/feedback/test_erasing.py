"""Erasure on SQLite, down to the bytes of its files."""

from hypothesis import given
from hypothesis import strategies as st

from feedback.store.erasing import names_of
from tests.contracts.erasures import ErasureContract


class TestErasureOnSqlite(ErasureContract):
    pass


@given(st.lists(st.text("ab", max_size=2), min_size=1, max_size=4).map("/".join))
def test_a_rater_is_meant_by_itself_by_what_it_begins_with_and_by_what_follows_the_owner(rater):
    names = names_of(rater)
    assert all(rater == name or rater.startswith(f"{name}/") or rater.partition("/")[2] == name for name in names)
    assert "" not in names and (not rater or rater in names)
