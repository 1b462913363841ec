import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import make_url, text

from feedback.collector import Collector
from feedback.episodes import build
from feedback.store import Claim, DeadLetter, Replies, Slip, Slot, Spent, Store, StoreError, Usage
from tests.contracts.samples import at, model_call, rating, request
from tests.contracts.store import StoreContract, open_at_once
from tests.servers import libpq


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def store(self, postgres_store):
        return postgres_store


def test_processes_that_open_a_new_store_at_once_all_succeed(fresh_database):
    open_at_once([fresh_database])


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_both_ways_to_write_the_url_are_understood(postgres_store_url, scheme):
    url = make_url(postgres_store_url).set(drivername=scheme)
    store = Store.open(url.render_as_string(hide_password=False))
    assert store.dead_letter_count() == 0
    store.close()


def test_another_driver_is_refused_with_words_on_what_is_meant():
    with pytest.raises(ValueError, match="postgresql://user@host/database"):
        Store.open("postgresql+asyncpg://user@host/database")


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_url):
    name = "latin"
    with psycopg.connect(libpq(postgres_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ValueError, match="LATIN1"):
        Store.open(make_url(postgres_url).set(database=name).render_as_string())


def test_a_server_that_is_away_is_a_store_error_without_the_password():
    with pytest.raises(StoreError, match="cannot open the store") as error:
        Store.open("postgresql://ann:sesame@127.0.0.1:1/flywheel")
    assert "sesame" not in str(error.value)


def test_a_server_that_takes_a_connection_and_says_nothing_is_a_store_error():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(StoreError, match="timeout"):
            Store.open(f"postgresql://ann@127.0.0.1:{port}/flywheel?connect_timeout=2")


def test_the_store_recovers_when_the_server_has_cut_every_connection(postgres_store, postgres_url):
    postgres_store.write([request()])
    with psycopg.connect(libpq(postgres_url), autocommit=True) as other:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flywheel'"
        assert other.execute(cut).fetchall()
    postgres_store.write([request("r2")])
    assert postgres_store.counts()["requests"] == 2


def test_a_connection_that_is_cut_in_the_middle_of_a_transaction_is_a_store_error_and_then_forgotten(
    postgres_store, postgres_url
):
    def cut_in_the_middle():
        with postgres_store.writing() as connection:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with psycopg.connect(libpq(postgres_url), autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            connection.execute(text("SELECT 1"))

    with pytest.raises(StoreError):
        cut_in_the_middle()
    postgres_store.write([request()])
    assert postgres_store.counts()["requests"] == 1


def test_who_waits_too_long_for_a_lock_is_told_and_nothing_is_written(postgres_store_url, postgres_store):
    impatient = Store.open(f"{postgres_store_url}&options=-c%20lock_timeout%3D100ms")
    with postgres_store.writing() as connection:
        connection.execute(text("LOCK TABLE requests IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StoreError, match="lock timeout"):
            impatient.write([request()])
    impatient.close()
    assert postgres_store.counts()["requests"] == 0


def test_two_who_write_the_same_events_in_opposite_orders_do_not_block_each_other(postgres_store):
    batch = [request(f"r{n}", calls=()) for n in range(300)]
    writers = [threading.Thread(target=postgres_store.write, args=[x]) for x in (batch, batch[::-1]) * 3]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert postgres_store.counts()["requests"] == 300


def test_two_who_spend_of_the_same_budgets_in_opposite_orders_lose_nothing(postgres_store):
    slots = [Slot("key:a", f"2026-01-{day:02}") for day in range(1, 21)]

    def spend(order):
        for _ in range(10):
            Usage(postgres_store).add({slot: Spent(1, 2) for slot in order})

    spenders = [threading.Thread(target=spend, args=[x]) for x in (slots, slots[::-1]) * 2]
    for spender in spenders:
        spender.start()
    for spender in spenders:
        spender.join()
    spent = Usage(postgres_store).add(dict.fromkeys(slots, Spent()))
    assert spent == dict.fromkeys(slots, Spent(40, 80))


def test_of_many_who_claim_one_request_at_once_exactly_one_answers(postgres_store):
    replies = Replies(postgres_store, keep=timedelta(hours=1), hold=timedelta(minutes=1))
    together, claims = threading.Barrier(6), []

    def claim():
        together.wait(10)
        claims.append(replies.claim(Slip("t", "k", "n"), "d"))

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(claim, Claim) for claim in claims) == 1
    assert claims.count("in progress") == 5


def test_times_are_utc_whatever_the_session_or_the_year(postgres_store):
    first = datetime(1, 1, 1, tzinfo=UTC)
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    postgres_store.write([request("old", time=first), request("new", time=last)])
    assert [found.time for found in postgres_store.requests(tenant="default")] == [first, last]


def test_what_a_message_of_postgresql_quotes_of_a_row_is_not_repeated(postgres_store):
    with pytest.raises(StoreError) as error:
        postgres_store.write([request()], [DeadLetter(b"a private matter", None)])  # type: ignore[arg-type]  # the fault
    assert "violates not-null" in str(error.value)
    assert "private" not in str(error.value)


def test_both_databases_give_the_same_episodes(store, postgres_store):
    asked = [request(f"r{n}", time=at(n % 3)) for n in range(20)]
    said = [rating(f"r{n}", value=n % 2 == 0, time=at(n)) for n in range(10)]
    said += [rating("r1", value=True, time=at(99)), rating(request_id=None, episode_id="e-r3", time=at(5))]
    found = []
    for each in (store, postgres_store):
        each.write([*asked, *said])
        current = each.current_ratings(tenant="default", agent="sql-analyst")
        found.append(build(each.requests("sql-analyst", tenant="default"), current))
    assert found[0] == found[1]
    assert len(found[0].episodes) == 20


def test_a_nul_in_any_text_of_an_event_is_kept(any_store):
    asked = request(
        "r1", "a\0b", output="\0", error="c\0", metadata={"a\0": "\0"}, calls=(model_call(text="d\0e"),)
    )
    rated = rating("r1", value=False, comment="\0", correction={"sql": "\0"}, tags={"\0": "\0"})
    Collector(any_store).collect([event.model_dump_json().encode() for event in (asked, rated)])
    assert any_store.request("r1", "default") == asked
    assert list(any_store.ratings(tenant="default")) == [rated]


@pytest.mark.parametrize(
    "fields",
    [{"episode_id": "a\0b"}, {"rater": "\0"}, {"call": 2**31}, {"call": 2**70}, {"event_id": "ab" * 9_000}],
    ids=str,
)
def test_what_the_database_cannot_hold_is_a_dead_letter_and_the_rest_of_the_batch_is_kept(any_store, fields):
    odd = rating().model_copy(update=fields).model_dump_json().encode()
    good = [rating(f"r{n}") for n in range(9)]
    batch = [x.model_dump_json().encode() for x in good]
    collected = Collector(any_store).collect([*batch[:4], odd, b"rubbish", *batch[4:]])
    letters = {letter.data: letter.reason for letter in any_store.dead_letters()}
    kept = list(any_store.ratings(tenant="default"))
    assert (collected.events, collected.dead_letters) == (len(kept), len(letters))
    assert len(kept) + len(letters) == 11
    assert all(x in kept for x in good)


def test_a_nul_in_the_name_of_a_field_does_not_keep_its_record_from_the_dead_letters(any_store):
    Collector(any_store).collect([rating().model_dump_json().replace("rater", "r\\u0000").encode()])
    [letter] = any_store.dead_letters()
    assert "r\\0" in letter.reason
