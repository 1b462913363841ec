"""What every store must not keep for longer than it is told. A subclass has the fixture `store`: an empty one, open."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from feedback.events import AnyEvent
from feedback.retention import RetentionOptions
from feedback.store import Claim, DeadLetter, Replies, Reply, Slip, Store
from feedback.store.retention import Retention
from tests.contracts.erasures import erased, left
from tests.contracts.samples import change, rating, request

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


def deleted(store: Store, **options) -> Counter[str]:
    retention = Retention(store, RetentionOptions.model_validate(options), replies_for=DAY)
    rows: Counter[str] = Counter()
    for step in retention.steps():
        rows[step.table] += step.rows
    return rows


class RetentionContract:
    def test_each_tenant_keeps_what_is_its_own_for_its_time(self, store: Store):
        events: dict[tuple[str, int], AnyEvent] = {}
        for tenant in ("a", "b", "c"):
            for days in (1, 10, 100):
                events[tenant, days] = request(f"{tenant}{days}", tenant=tenant, time=NOW - days * DAY)
        store.write([*events.values()])
        assert deleted(store, days=50, tenants={"b": {"days": 5}, "c": {}}) == {"requests": 3}
        gone = {("a", 100), ("b", 10), ("b", 100)}
        assert left(store) == sorted(event.event_id for name, event in events.items() if name not in gone)

    def test_ratings_kept_answers_and_dead_letters_go_and_policies_and_erasures_stay(self, store: Store):
        old = NOW - 9 * DAY
        stay: list[AnyEvent] = [change("a@1", "active").model_copy(update={"time": old}), rating("r2")]
        store.write([*stay, erased("nobody", time=old), rating(time=old)], [DeadLetter(b"x", "no JSON")])
        answers = Replies(store, keep=DAY, hold=DAY)
        claim = answers.claim(Slip("default", "k", "n"), "d")
        assert isinstance(claim, Claim) and answers.finish(claim, Reply(200, {}, b"yes"))
        assert deleted(store, days=5) == {"ratings": 1}
        assert deleted(store, days=1e-9) == {"ratings": 1, "dead_letters": 1, "replies": 1}
        assert left(store) == [stay[0].event_id]
        assert store.counts()["erasures"] == 1

    def test_dead_letters_have_the_shortest_time_for_nobody_knows_whose_they_are(self, store: Store):
        store.write([], [DeadLetter(b"x", "no JSON")])
        assert deleted(store, days=1) == {}
        assert deleted(store, days=1, tenants={"a": {"days": 1e-9}}) == {"dead_letters": 1}

    def test_more_than_one_step_deletes_goes_in_several(self, store: Store):
        store.write([request(f"r{number}", time=NOW - 9 * DAY, calls=()) for number in range(1_100)])
        steps = list(Retention(store, RetentionOptions(days=1), replies_for=DAY).steps())
        assert [step.rows for step in steps] == [500, 500, 100]

    def test_without_a_time_everything_stays(self, store: Store):
        store.write([request(time=NOW - 9_999 * DAY)], [DeadLetter(b"x", "no JSON")])
        assert deleted(store) == {}
        assert store.counts()["requests"] == 1
