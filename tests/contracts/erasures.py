"""What every store must forget, and keep. A subclass has the fixture `store`: an empty one, open."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from sqlalchemy import select

from feedback.events import AnyEvent, Erased, parse
from feedback.store import (
    BackgroundResponses,
    Claim,
    DeadLetter,
    Deletions,
    Keys,
    Replies,
    Reply,
    Slip,
    Store,
)
from feedback.store.tables import metadata
from tests.contracts.samples import at, change, rating, request

HOUR = timedelta(hours=1)


def erased(person: str | None = "ann", **fields) -> Erased:
    return Erased.model_validate({"person": person, "by": "ops", "time": at(60), **fields})


def asked(request_id: str = "r1", **fields):
    return request(request_id, **{"caller": "ann", "time": at(1), **fields})


def said(request_id: str | None = "r1", **fields):
    return rating(request_id, **{"rater": "bob", "time": at(2), **fields})


def left(store: Store) -> list[str]:
    """Ids of all events but erasures."""
    with store.reading() as connection:
        return sorted(
            row.event_id
            for name in ("requests", "ratings", "policy_changes")
            for row in connection.execute(select(metadata.tables[name].c.event_id))
        )


def everything(store: Store) -> str:
    """Every value in every table, but for that which says what was erased."""
    with store.reading() as connection:
        return "\n".join(
            str(value)
            for table in metadata.tables.values()
            if table.name != "erasures"
            for row in connection.execute(select(table))
            for value in row
        )


class ErasureContract:
    def test_a_person_is_forgotten_with_all_that_was_said_of_what_it_asked(self, store: Store):
        kept: list[AnyEvent] = [
            asked("r2", caller="bob"),
            said("r2"),
            said("nowhere"),
            change("a@1", "active"),
        ]
        gone: list[AnyEvent] = [
            asked(),
            said(),
            said(call=0),
            said("r2", rater="ann"),
            said("nowhere", rater="ann"),
        ]
        store.write([*kept, *gone])
        store.write([erased()])
        assert left(store) == sorted(event.event_id for event in kept)
        assert store.counts()["erasures"] == 1

    def test_a_request_is_forgotten_with_all_that_was_said_of_it_and_nothing_else_of_its_caller(
        self, store: Store
    ):
        kept: list[AnyEvent] = [asked("r2"), said("r2")]
        store.write([*kept, asked(), said(), said(rater="ann")])
        store.write([erased(None, request_id="r1")])
        assert left(store) == sorted(event.event_id for event in kept)

    @pytest.mark.parametrize("batches", [1, 4])
    def test_in_whatever_order_it_comes_the_same_is_left(self, store: Store, batches: int):
        """The request comes from one outbox, the rating by another person from a second, the erasure from a third."""
        for number, order in enumerate(permutations(range(4))):
            tenant = f"t{number}"
            events: list[AnyEvent] = [
                asked(tenant=tenant),
                said(tenant=tenant),
                said(None, episode_id="e-r1", tenant=tenant),
                erased(tenant=tenant),
            ]
            ordered = [events[index] for index in order]
            for start in range(0, 4, 4 // batches):
                store.write(ordered[start : start + 4 // batches])
        assert left(store) == []

    def test_what_is_read_again_from_the_beginning_stays_forgotten(self, store: Store):
        events: list[AnyEvent] = [
            asked(),
            said(),
            said("r2", rater="ann"),
            asked("r3", caller="bob"),
            erased(),
        ]
        for _ in range(3):
            store.write(events)
            for event in events:
                store.write([event])
        assert left(store) == [events[3].event_id]

    def test_what_a_person_does_after_its_erasure_is_kept(self, store: Store):
        store.write([erased()])
        later = [asked("r2", time=at(61)), said("r3", rater="ann", time=at(61))]
        store.write([asked("r1", time=at(60)), *later])
        assert left(store) == sorted(event.event_id for event in later)

    def test_a_request_that_was_erased_while_it_was_made_is_not_kept_when_it_ends(self, store: Store):
        store.write([erased(None, request_id="r1")])
        store.write([asked(time=at(90)), said(time=at(91))])
        assert left(store) == []

    def test_another_tenants_namesake_is_somebody_else(self, store: Store):
        kept = [asked(tenant="b"), said(rater="ann", tenant="b")]
        store.write([*kept, erased(tenant="a")])
        store.write([erased(None, request_id="r1", tenant="a")])
        assert left(store) == sorted(event.event_id for event in kept)

    @pytest.mark.parametrize("person", ["crm", "ann", "crm/ann"])
    def test_a_rater_behind_an_owner_is_meant_by_either_name_and_by_both(self, store: Store, person: str):
        kept = [said(rater=name) for name in ("crm2/anna", "crm2", "joann", "x/crm2", "ANN", "a_n")]
        store.write([*kept, said(rater="crm/ann")])
        store.write([erased(person)])
        store.write([said(rater="crm/ann", name="late")])
        assert left(store) == sorted(event.event_id for event in kept)

    def test_what_is_said_of_an_episode_goes_when_nothing_is_left_in_it(self, store: Store):
        shared = [asked("r2", episode_id="both", caller="bob"), said(None, episode_id="both")]
        store.write([*shared, asked("r3", episode_id="both"), asked(), said(None, episode_id="e-r1")])
        store.write([erased()])
        store.write([said(None, episode_id="e-r1", time=at(3))])
        later = said(None, episode_id="e-r1", time=at(61))
        store.write([later])
        assert left(store) == sorted(event.event_id for event in (*shared, later))

    def test_dead_letters_go_as_far_as_they_can_be_read(self, store: Store):
        cut = [event.model_dump_json().encode()[:-1] for event in (asked(), said(), said("r9", rater="ann"))]
        others = [
            asked("r5", caller="bob", output="annual").model_dump_json().encode()[:-1],
            asked("r6", tenant="b").model_dump_json().encode()[:-1],
            b"no JSON",
        ]
        store.write([asked()], [DeadLetter(data, "cut") for data in (*cut, *others)])
        store.write([erased()])
        assert {letter.data for letter in store.dead_letters()} == set(others)
        store.write([], [DeadLetter(data, "cut") for data in (*cut, *others)])
        assert {letter.data for letter in store.dead_letters()} == set(others)

    def test_kept_answers_deletions_and_unfinished_responses_go_too(self, store: Store):
        keys = Keys(store)
        for owner in ("ann", "bob"):
            keys.create(owner, ["invoke"])
        ids = {key.owner: key.id for key in keys.list()}
        answers = Replies(store, keep=HOUR, hold=HOUR)
        for key_id in ids.values():
            claim = answers.claim(Slip("default", key_id, "n"), "d")
            assert isinstance(claim, Claim) and answers.finish(claim, Reply(200, {}, b'{"id":"resp_1"}'))
        background = BackgroundResponses(store, hold=HOUR, keep=HOUR)
        background.add("resp_1", "default", {"instructions": "secret"})
        background.add("resp_2", "default", {"instructions": "another's"})
        deletions = Deletions(store)
        deletions.add("resp_1", tenant="default", by="ann")
        deletions.add("resp_3", tenant="default", by="ann")
        store.write([asked("resp_1"), erased()])
        assert answers.claim(Slip("default", ids["bob"], "n"), "d") == Reply(200, {}, b'{"id":"resp_1"}')
        assert isinstance(answers.claim(Slip("default", ids["ann"], "n"), "d"), Claim)
        assert (
            background.find("resp_1", "default") is None and background.find("resp_2", "default") is not None
        )
        assert deletions.has("resp_3", "default") and not deletions.has("resp_1", "default")
        embedded = answers.claim(Slip("default", ids["bob"], "e"), "d")
        assert isinstance(embedded, Claim)
        assert answers.finish(embedded, Reply(200, {"x-request-id": "resp_1"}, b'{"data":[]}'))
        store.write([erased(None, request_id="resp_1")])
        for name in ("n", "e"):
            assert isinstance(answers.claim(Slip("default", ids["bob"], name), "d"), Claim)

    def test_more_than_fits_into_one_statement_goes(self, store: Store):
        store.write([asked(f"r{number}", calls=()) for number in range(1_201)])
        store.write([erased()])
        assert left(store) == []

    def test_neither_the_person_nor_its_ids_nor_its_words_are_left_in_any_table(self, store: Store):
        words = asked("chatcmpl-x", question="my words", output="its answer", episode_id="my-episode")
        store.write(
            [words, said("chatcmpl-x", comment="about my words"), said("r9", rater="ann", comment="my words")]
        )
        assert "my words" in everything(store)
        store.write([erased()])
        found = everything(store)
        assert not any(
            text in found for text in ("my words", "its answer", "chatcmpl-x", "my-episode", "ann")
        )

    def test_an_erasure_is_remembered_with_its_reason(self, store: Store):
        event = erased(reason="asked by letter", time=datetime(2026, 1, 2, tzinfo=UTC))
        store.write([event])
        with store.reading() as connection:
            [payload] = connection.execute(select(metadata.tables["erasures"].c.payload)).scalars()
        assert parse(payload) == event
