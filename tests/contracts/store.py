"""What every store must do. A subclass has the fixture `store`: an empty one, open."""

import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from feedback.events import CLIENT_ID, AnyEvent
from feedback.policies import told_policy
from feedback.quota import Quota
from feedback.store import (
    BackgroundResponses,
    Claim,
    DeadLetter,
    Deletions,
    Filter,
    Keys,
    Ratings,
    Replies,
    Reply,
    Slip,
    Slot,
    Spent,
    Store,
    StoreError,
    Unfinished,
    Usage,
)
from feedback.store.tables import metadata
from tests.contracts.samples import at, change, rating, request

NOW = datetime.now(UTC)
SLIP = Slip("t", "k", "n")


OPEN_AND_WRITE = """
import sys
from feedback.store import Store
from tests.contracts.samples import request
print("ready", flush=True)
for url in sys.stdin:
    store = Store.open(url.strip())
    store.write([request(f"{sys.argv[1]}-{n}") for n in range(20)])
    store.close()
    print("done", flush=True)
"""


def open_at_once(urls: Iterable[str]) -> None:
    """Three processes open each of these new stores at once and write to it; all must succeed."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WRITE, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"  # all is imported
    for url in urls:
        for process in started:
            assert process.stdin is not None
            process.stdin.write(f"{url}\n")
            process.stdin.flush()
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "done\n"
        store = Store.open(url)
        assert store.counts()["requests"] == 60
        store.close()
    for process in started:
        process.communicate()


class StoreContract:
    def test_the_migrations_make_the_tables_that_the_code_describes(self, store: Store):
        with store.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def test_an_event_is_read_as_it_was_written(self, store: Store):
        asked = request(metadata={"purpose": "chat"}, error=None, trace_id="ab" * 16)
        store.write([asked])
        assert store.request("r1", "default") == asked

    def test_writing_again_changes_nothing(self, store: Store):
        batch: list[AnyEvent] = [request(), rating(), change("sql-analyst@1", "candidate")]
        letters = [DeadLetter(b"x", "not JSON")]
        store.write(batch, letters)
        store.write([*batch, *batch], [*letters, *letters])
        assert store.counts() == {
            "requests": 1,
            "ratings": 1,
            "policy_changes": 1,
            "erasures": 0,
            "dead_letters": 1,
        }
        assert store.dead_letter_count() == 1

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

    def test_a_later_rating_supersedes_on_its_own_target_only(self, store: Store):
        targets: list[dict[str, Any]] = [
            {"request_id": "r1"},
            {"request_id": "r1", "call": 0},
            {"request_id": "r1", "call": 1},
            {"request_id": None, "episode_id": "e1"},
            {"request_id": None, "episode_id": "e2"},
        ]
        first = [rating(**target, value=True, time=at(1)) for target in targets]
        # Of a request, the episode is not known as long as it has not landed.
        again = [rating(**{"episode_id": "e1", **target}, value=False, time=at(2)) for target in targets]
        store.write(first)
        for n, later in enumerate(again):
            store.write([later])
            wanted = {one.event_id for one in (*again[: n + 1], *first[n + 1 :])}
            assert {one.event_id for one in store.current_ratings(tenant="default")} == wanted
            listed = Ratings(store).page(Filter(), tenant="default", limit=9).ratings
            assert {one.event_id for one in listed} == wanted
            assert Ratings(store).stands(later) and not Ratings(store).stands(first[n])

    def test_what_is_withdrawn_counts_no_more_until_something_else_is_said(self, store: Store):
        page = partial(Ratings(store).page, tenant="default", limit=9)
        said, other = rating(time=at(1)), rating(rater="bob", time=at(1))
        taken_back = rating(value=None, time=at(2))
        store.write([taken_back, said, other])
        assert list(store.current_ratings(tenant="default")) == [other] == list(page(Filter()).ratings)
        assert list(page(Filter(withdrawn=True)).ratings) == [taken_back]
        anew = rating(value=False, time=at(3))
        store.write([anew])
        assert list(store.current_ratings(tenant="default")) == [other, anew]
        assert page(Filter(withdrawn=True)).ratings == []
        assert len(list(store.ratings(tenant="default"))) == 4

    def test_ratings_of_an_episode_belong_to_the_agents_that_answered_in_it(self, store: Store):
        of_episode, of_another = (rating(None, episode_id=name) for name in ("e-r1", "e-r2"))
        store.write([request("r1"), request("r2", agent="other"), of_episode, of_another])
        assert list(store.current_ratings(tenant="default", agent="sql-analyst")) == [of_episode]
        assert list(Ratings(store).page(Filter(agent="other"), tenant="default", limit=9).ratings) == [
            of_another
        ]

    def test_a_page_of_ratings_ends_where_the_next_begins(self, store: Store):
        said = sorted(
            (rating(f"r{n}", time=at(n // 4)) for n in range(9)), key=lambda one: (one.time, one.event_id)
        )
        store.write(said)
        listed = Ratings(store)
        newest = listed.page(Filter(), tenant="default", limit=4)
        assert (list(newest.ratings), newest.has_more) == (said[:4:-1], True)
        rest = listed.page(Filter(), tenant="default", limit=5, after=newest.ratings[-1])
        assert (list(rest.ratings), rest.has_more) == (said[4::-1], False)
        onwards = listed.page(Filter(), tenant="default", limit=9, after=said[2], order="asc")
        assert list(onwards.ratings) == said[3:]

    def test_a_rating_is_found_by_its_id_in_its_own_tenant(self, store: Store):
        said = rating(tenant="a", tags={CLIENT_ID: "s1"})
        store.write([said])
        listed = Ratings(store)
        assert listed.get(said.event_id, "a") == said
        assert listed.get(said.event_id, "b") is None is listed.get("nowhere", "a")
        assert list(listed.page(Filter(client_id="s1"), tenant="a", limit=9).ratings) == [said]
        assert listed.page(Filter(client_id="s1"), tenant="b", limit=9).ratings == []

    def test_the_newest_request_of_an_episode_a_trace_or_a_span_is_found(self, store: Store):
        asked = [request(f"r{n}", episode_id="e", trace_id="ab" * 16, time=at(n)) for n in (1, 2, 0)]
        store.write([*asked, request("r9", tenant="b", episode_id="e", trace_id="ab" * 16, time=at(9))])
        assert store.newest("default", episode_id="e") == asked[1]
        assert store.newest("default", trace_id="ab" * 16) == asked[1]
        assert store.newest("default", span_id=asked[2].span_id) == asked[2]
        assert store.newest("default", trace_id="cd" * 16) is None
        assert store.newest("c", episode_id="e") is None

    def test_what_others_told_of_is_found_where_the_gateway_answered_nothing_in_it(self, store: Store):
        fields = {"episode_id": "e", "trace_id": "ab" * 16}
        ours = request("r1", **fields, time=at(0))
        told = request(
            "t1", **fields, time=at(1), origin="otlp", policy=told_policy("sql-analyst", "gpt-large")
        )
        store.write([told])
        assert store.newest("default", episode_id="e") == told
        store.write([ours])
        assert store.newest("default", episode_id="e") == store.newest("default", trace_id="ab" * 16) == ours

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

    def test_an_expired_key_cannot_be_used_but_what_became_of_it_can_be_found_out(self, store: Store):
        keys = Keys(store)
        over, live = (keys.create("ann", ["rate"], expires=NOW + timedelta(hours=n)) for n in (-1, 1))
        assert keys.lookup(over) is None
        found = keys.find(over)
        assert found is not None and found.expires == NOW - timedelta(hours=1)
        usable = keys.lookup(live)
        assert usable is not None and not usable.expired(NOW) and usable.expired(NOW + timedelta(hours=1))
        assert keys.find(live[:-1]) is None

    def test_a_key_has_its_own_limits_until_it_is_given_others(self, store: Store):
        keys = Keys(store)
        secret = keys.create("ann", [], quota=Quota(requests_per_minute=5, money_per_day=0.5))
        [key] = keys.list()
        assert key.quota == Quota(requests_per_minute=5, money_per_day=0.5)
        assert keys.limit(key.id, Quota(tokens_per_day="unlimited"))
        changed = keys.lookup(secret)
        assert changed is not None and changed.quota == Quota(tokens_per_day="unlimited")
        keys.revoke(key.id)
        assert not keys.limit(key.id, Quota())

    def test_another_tenants_key_is_as_unknown_as_one_that_never_was(self, store: Store):
        keys = Keys(store)
        secret = keys.create("ann", [], tenant="a")
        [key] = keys.of_tenant("a")
        assert keys.get(key.id, "a") == key
        assert keys.get(key.id, "b") is None is keys.get("0" * 16, "b")
        assert keys.of_tenant("b") == []
        assert not keys.revoke(key.id, "b")
        assert not keys.limit(key.id, Quota(requests_per_minute=1), "b")
        assert keys.lookup(secret) == key
        assert keys.revoke(key.id, "a")

    def test_a_key_can_be_granted_other_scopes(self, store: Store):
        keys = Keys(store)
        secret, other = keys.create("ann", ["rate"]), keys.create("bob", ["rate"])
        keys.grant(secret, ["rate", "review"])
        assert [keys.lookup(s).scopes for s in (secret, other)] == [{"rate", "review"}, {"rate"}]  # type: ignore[union-attr]  # both are there

    def test_current_ratings_are_narrowed_by_rater(self, store: Store):
        store.write([rating(rater="ann"), rating(rater="bob")])
        found = store.current_ratings(tenant="default", request_id="r1", rater="bob")
        assert [r.rater for r in found] == ["bob"]

    def test_what_is_spent_adds_up_whoever_spends_it(self, store: Store):
        day, month, other = Slot("key:a", "2026-01-31"), Slot("key:a", "2026-01"), Slot("key:b", "2026-01")
        usage, elsewhere = Usage(store), Usage(store)
        assert usage.add({day: Spent(5, 50), month: Spent(5, 50)}) == {day: (5, 50), month: (5, 50)}
        assert elsewhere.add({day: Spent(1, 2), other: Spent()}) == {day: (6, 52), other: (0, 0)}
        assert usage.add({day: Spent(), month: Spent()}) == {day: (6, 52), month: (5, 50)}

    def test_of_two_who_claim_the_same_request_one_answers_and_the_other_gets_the_answer(self, store: Store):
        replies = Replies(store, keep=timedelta(hours=1), hold=timedelta(minutes=1))
        claim = replies.claim(SLIP, "d")
        assert isinstance(claim, Claim)
        assert replies.claim(SLIP, "d") == "in progress"
        assert replies.claim(SLIP, "other") == "another request"
        reply = Reply(200, {"x-policy": "p"}, b"yes")
        assert replies.finish(claim, reply)
        assert replies.claim(SLIP, "d") == reply
        assert replies.claim(SLIP, "other") == "another request"
        replies.release(claim)  # too late: it has been given
        assert replies.claim(SLIP, "d") == reply

    @pytest.mark.parametrize("other", [("other", "k", "n"), ("t", "other", "n"), ("t", "k", "other")])
    def test_nobody_else_gets_a_callers_answer(self, store: Store, other: tuple[str, str, str]):
        replies = Replies(store, keep=timedelta(hours=1), hold=timedelta(minutes=1))
        claim = replies.claim(SLIP, "d")
        assert isinstance(claim, Claim) and replies.finish(claim, Reply(200, {}, b"yes"))
        assert isinstance(replies.claim(Slip(*other), "d"), Claim)

    def test_a_claim_that_is_released_or_has_run_out_can_be_taken_and_its_old_holder_has_it_no_more(
        self, store: Store
    ):
        replies = Replies(store, keep=timedelta(hours=1), hold=timedelta(0))
        first, second = replies.claim(SLIP, "d"), replies.claim(SLIP, "d")
        assert isinstance(first, Claim) and isinstance(second, Claim)
        assert not replies.renew(first) and not replies.finish(first, Reply(200, {}, b"old"))
        replies.release(first)
        assert replies.renew(second) and replies.finish(second, Reply(200, {}, None))
        assert replies.claim(SLIP, "d") == Reply(200, {}, None)

    def test_a_reply_is_kept_for_its_time_and_then_deleted_whoever_comes(self, store: Store):
        short = Replies(store, keep=timedelta(0), hold=timedelta(minutes=1))
        claim = short.claim(SLIP, "d")
        assert isinstance(claim, Claim) and short.finish(claim, Reply(200, {}, b"yes"))
        assert isinstance(short.claim(Slip("t", "k", "another"), "d"), Claim)
        with store.reading() as connection:
            assert connection.exec_driver_sql("SELECT name FROM replies").scalars().all() == ["another"]

    def test_a_response_in_the_background_is_its_tenants_and_lost_when_nobody_holds_it(self, store: Store):
        held, lost = (
            BackgroundResponses(store, hold=timedelta(minutes=n), keep=timedelta(days=1)) for n in (1, 0)
        )
        held.add("r1", "a", {"id": "r1"})
        lost.add("r2", "a", {"id": "r2"})
        assert lost.find("r1", "a") == Unfinished({"id": "r1"}, lost=False)
        assert held.find("r2", "a") == Unfinished({"id": "r2"}, lost=True)
        assert held.find("r1", "b") is None is held.find("r3", "a")
        held.renew(["r2"])
        assert held.find("r2", "a") == Unfinished({"id": "r2"}, lost=False)

    def test_who_makes_a_response_in_the_background_hears_of_its_own_tenants_cancellation(self, store: Store):
        background = BackgroundResponses(store, hold=timedelta(minutes=1), keep=timedelta(days=1))
        for name in ("r1", "r2", "r3"):
            background.add(name, "a", {})
        background.cancel("r1", "a")
        background.cancel("r2", "b")
        assert background.renew(["r1", "r2", "nowhere"]) == {"r1": True, "r2": False}

    def test_a_response_in_the_background_goes_when_its_own_request_has_landed(self, store: Store):
        background = BackgroundResponses(store, hold=timedelta(minutes=1), keep=timedelta(days=1))
        background.add("r1", "a", {})
        store.write([request(tenant="b")])
        assert background.renew(["r1"]) == {"r1": False}
        store.write([request(tenant="a")])
        assert background.find("r1", "a") is not None  # until somebody makes one
        assert background.renew(["r1"]) == {}
        assert background.find("r1", "a") is None

    def test_a_lost_response_is_kept_for_its_time(self, store: Store):
        kept = BackgroundResponses(store, hold=timedelta(0), keep=timedelta(days=1))
        kept.add("r1", "a", {})
        kept.add("r2", "a", {})
        assert kept.find("r1", "a") is not None
        BackgroundResponses(store, hold=timedelta(0), keep=timedelta(0)).add("r3", "a", {})
        assert [kept.find(name, "a") is None for name in ("r1", "r2", "r3")] == [True, True, False]

    def test_an_owner_cannot_be_named_as_those_are_for_whom_another_speaks(self, store: Store):
        with pytest.raises(ValueError, match="no slash"):
            Keys(store).create("app/ann", [])

    def test_a_scope_of_two_words_is_refused(self, store: Store):
        with pytest.raises(ValueError, match="one word"):
            Keys(store).create("ann", ["chat rate"])
