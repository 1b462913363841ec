"""What every store must do. A subclass has the fixture `store`: an empty one, open."""

import pytest

from feedback.events import AnyEvent
from feedback.store import DeadLetter, Deletions, Keys, Store, StoreError
from tests.contracts.samples import at, change, rating, request


class StoreContract:
    def test_an_event_is_read_as_it_was_written(self, store: Store):
        asked = request(metadata={"purpose": "chat"}, error=None, trace_id="ab" * 16)
        store.write([asked])
        assert store.request("r1", "default") == asked

    def test_writing_again_changes_nothing(self, store: Store):
        batch: list[AnyEvent] = [request(), rating(), change("sql-analyst@1", "candidate")]
        letters = [DeadLetter(b"x", "not JSON")]
        store.write(batch, letters)
        store.write([*batch, *batch], [*letters, *letters])
        assert store.counts() == {"requests": 1, "ratings": 1, "policy_changes": 1, "dead_letters": 1}

    def test_a_write_that_fails_has_written_nothing(self, store: Store):
        with pytest.raises(StoreError):
            store.write([request(), rating()], [DeadLetter(b"x", None)])  # type: ignore[arg-type]  # the fault
        assert sum(store.counts().values()) == 0

    def test_an_unknown_request_is_none(self, store: Store):
        assert store.request("nowhere", "default") is None

    def test_no_read_crosses_tenants(self, store: Store):
        store.write([request(tenant="a"), rating(tenant="a"), rating(tenant="b", rater="eve")])
        assert store.request("r1", "b") is None
        assert list(store.requests(tenant="b")) == []
        assert [found.tenant for found in store.ratings(tenant="a")] == ["a"]
        assert [found.rater for found in store.current_ratings(tenant="a", agent="sql-analyst")] == ["ann"]
        assert list(store.current_ratings(tenant="b", agent="sql-analyst")) == []

    def test_requests_come_oldest_first_and_once_each_over_many_pages(self, store: Store):
        written = [request(f"r{n}", time=at(n // 7), calls=()) for n in range(450)]
        store.write(written[::-1])
        assert [r.event_id for r in store.requests(tenant="default")] == [r.event_id for r in written]

    def test_requests_are_narrowed_by_every_argument(self, store: Store):
        others = [
            request("r2", agent="other"),
            request("r3", status="failed", output=None, error="late"),
            request("r4", policy="sql-analyst@2"),
            request("r5", episode_id="another"),
            request("r6", time=at(0)),
            request("r7", time=at(9)),
        ]
        wanted = request("r1", time=at(5), episode_id="e")
        store.write([wanted, *(x.model_copy(update={"time": at(5)}) for x in others[:3]), *others[3:]])
        found = store.requests(
            "sql-analyst",
            tenant="default",
            episode_id="e",
            policy="sql-analyst@base",
            status="completed",
            since=at(5),
            until=at(9),
        )
        assert list(found) == [wanted]

    @pytest.mark.parametrize("first", ["rating", "request"])
    def test_a_rating_may_land_before_its_request(self, store: Store, first: str):
        asked, rated = request(), rating()
        for event in (rated, asked) if first == "rating" else (asked, rated):
            store.write([event])
        assert list(store.current_ratings(tenant="default", agent="sql-analyst")) == [rated]

    def test_a_rating_without_its_request_is_kept_but_belongs_to_no_agent_yet(self, store: Store):
        store.write([rating("unseen")])
        assert len(list(store.current_ratings(tenant="default"))) == 1
        assert list(store.current_ratings(tenant="default", agent="sql-analyst")) == []

    def test_a_later_rating_by_the_same_rater_supersedes_and_nothing_is_deleted(self, store: Store):
        old, new = rating(value=True, time=at(1)), rating(value=False, time=at(2))
        others = [
            rating(rater="bob", time=at(0)),
            rating(name="useful", value=0.5, time=at(0)),
            rating("r2", time=at(0)),
        ]
        store.write([new, *others])
        store.write([old])  # what counts is when it was said, not when it landed
        assert new in (current := list(store.current_ratings(tenant="default")))
        assert sorted(current, key=str) == sorted([new, *others], key=str)
        assert list(store.ratings(tenant="default", request_id="r1", name="correct", since=at(1))) == [
            old,
            new,
        ]

    def test_current_ratings_are_narrowed_by_request_and_metric(self, store: Store):
        wanted = rating("r1", name="correct")
        store.write([wanted, rating("r2"), rating("r1", name="useful")])
        assert list(store.current_ratings(tenant="default", request_id="r1", name="correct")) == [wanted]

    def test_policies_have_their_state_and_history(self, store: Store):
        first = change("sql-analyst@1", "candidate", 1, path="/checkpoints/1")
        second = change("sql-analyst@1", "evaluated", 2, evidence={"accuracy": 0.5})
        store.write(
            [
                second,
                change("sql-analyst@base", "active", 0),
                first,
                change("other@1", "active", agent="other"),
            ]
        )
        found = store.policies("sql-analyst")
        assert sorted(found) == ["sql-analyst@1", "sql-analyst@base"]
        status = found["sql-analyst@1"]
        assert (status.state, status.path, status.last) == ("evaluated", "/checkpoints/1", second)
        assert status.history == (first, second)

    def test_a_response_is_deleted_once_by_its_tenant_and_its_request_stays(self, store: Store):
        deletions = Deletions(store)
        assert not deletions.has("r1", "a")
        assert deletions.add("r1", tenant="a", by="ann")  # before its request has landed
        assert not deletions.add("r1", tenant="a", by="bob")
        store.write([request(tenant="a")])
        assert deletions.has("r1", "a")
        assert not deletions.has("r1", "b") and not deletions.has("r2", "a")
        assert store.request("r1", "a") is not None

    def test_a_key_is_found_by_its_secret_alone(self, store: Store):
        keys = Keys(store)
        secret = keys.create("ann", ["chat", "rate"], tenant="acme")
        assert secret.startswith("fw-")
        key = keys.lookup(secret)
        assert key is not None
        assert (key.owner, key.tenant, key.scopes) == ("ann", "acme", frozenset({"chat", "rate"}))
        assert keys.lookup(secret[:-1]) is None
        assert keys.lookup(key.id) is None

    def test_a_revoked_key_is_unknown_but_stays_in_the_list(self, store: Store):
        keys = Keys(store)
        kept, gone = keys.create("ann", []), keys.create("bob", [])
        [key] = [key for key in keys.list() if key.owner == "bob"]
        assert keys.revoke(key.id)
        assert not keys.revoke(key.id)
        assert not keys.revoke("")
        assert keys.lookup(gone) is None
        assert keys.lookup(kept) is not None
        assert [(key.owner, key.revoked is None) for key in keys.list()] == [("ann", True), ("bob", False)]

    def test_a_scope_of_two_words_is_refused(self, store: Store):
        with pytest.raises(ValueError, match="one word"):
            Keys(store).create("ann", ["chat rate"])
