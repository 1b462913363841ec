import asyncio
import sqlite3
import subprocess
import sys

import pytest

from feedback.events import parse
from feedback.outbox import Outbox, OutboxError
from tests.contracts.samples import rating

APPEND_FOR_EVER = """
import asyncio, sys
from feedback.events import Rating
from feedback.outbox import Outbox

async def one(outbox):
    while True:
        event = Rating(rater="ann", request_id="r1", value=True)
        await outbox.append(event)
        print(event.event_id, flush=True)

async def main():
    outbox = Outbox(sys.argv[1])
    await asyncio.gather(*(one(outbox) for _ in range(20)))

asyncio.run(main())
"""


def ids(outbox):
    return [parse(body).event_id for _, body in outbox.read(1_000_000)]


async def fill(outbox):
    """Append until the disk is full. Returns the ids that were acknowledged."""
    taken: list[str] = []

    async def append_for_ever():
        while True:
            event = rating(comment="x" * 500)
            await outbox.append(event)
            taken.append(event.event_id)

    with pytest.raises(OutboxError, match="SQLITE_FULL"):
        await append_for_ever()
    return taken


async def test_events_are_read_in_the_order_in_which_they_were_appended(outbox):
    events = [rating(f"r{n}") for n in range(5)]
    for event in events:
        await outbox.append(event)
    assert [parse(body) for _, body in outbox.read(3)] == events[:3]


async def test_large_events_are_read_a_few_at_a_time_and_the_largest_alone(outbox):
    sizes = [1, 3 * 2**20, 5 * 2**20 - 1, 12 * 2**20, 1]
    for size in sizes:
        await outbox.append_encoded(bytes(size))
    read = []
    while found := outbox.read(100):
        read.append([len(body) for _, body in found])
        outbox.delete(found[-1][0])
    assert read == [sizes[:3], [sizes[3]], [sizes[4]]]


async def test_what_was_deleted_is_gone_and_the_rest_stays(outbox):
    events = [rating(f"r{n}") for n in range(5)]
    for event in events:
        await outbox.append(event)
    sequence, _ = outbox.read(2)[-1]
    outbox.delete(sequence)
    assert ids(outbox) == [event.event_id for event in events[2:]]


async def test_what_waits_is_found_by_what_it_holds(outbox):
    events = [
        rating("r1"),
        rating("r2"),
        rating("r1", value=False),
        rating("r3", comment='"request_id":"r1"'),
    ]
    for event in events:
        await outbox.append(event)
    found = [parse(body).event_id for body in outbox.containing(b'"request_id":"r1"')]
    assert found == [events[0].event_id, events[2].event_id]  # in a text, quotation marks are escaped
    outbox.delete(1)
    assert len(outbox.containing(b'"request_id":"r1"')) == 1
    assert outbox.containing(b'"request_id":"r"') == []


async def test_a_sequence_number_is_never_used_twice(outbox):
    """Else a deletion that is tried again would delete an event that came later."""
    await outbox.append(rating())
    [(first, _)] = outbox.read(10)
    outbox.delete(first)
    await outbox.append(rating())
    [(second, _)] = outbox.read(10)
    assert second > first


async def test_hundreds_of_tasks_append_at_once_in_few_transactions(outbox, tmp_path):
    events = [rating(f"r{n}") for n in range(400)]
    await asyncio.gather(*map(outbox.append, events))
    assert sorted(ids(outbox)) == sorted(event.event_id for event in events)
    file = sqlite3.connect(tmp_path / "outbox.db")
    [[groups]] = file.execute("SELECT count(DISTINCT time) FROM outbox")  # a group shares its time
    file.close()
    assert groups < 100


async def test_depth_counts_what_waits_and_for_how_long(outbox, tmp_path):
    assert outbox.depth() == (0, 0.0)
    for n in range(3):
        await outbox.append(rating(f"r{n}"))
    file = sqlite3.connect(tmp_path / "outbox.db")
    file.execute("UPDATE outbox SET time = time - 60 WHERE sequence = 1")
    file.commit()
    file.close()
    count, age = outbox.depth()
    assert count == 3
    assert 60 <= age < 90
    outbox.delete(1)
    count, age = outbox.depth()
    assert count == 2
    assert age < 30


async def test_a_full_disk_refuses_the_event_and_keeps_what_was_acknowledged(tmp_path):
    outbox = Outbox(tmp_path / "o.db", max_bytes=200_000)
    taken = await fill(outbox)
    assert len(taken) > 100
    assert ids(outbox) == taken
    assert outbox.depth().events == len(taken)
    outbox.close()


async def test_every_append_of_a_group_that_does_not_fit_is_refused(tmp_path):
    outbox = Outbox(tmp_path / "o.db", max_bytes=200_000)
    taken = await fill(outbox)
    answers = await asyncio.gather(
        *(outbox.append(rating(comment="x" * 5_000)) for _ in range(50)), return_exceptions=True
    )
    assert {type(answer) for answer in answers} == {OutboxError}
    assert ids(outbox) == taken
    outbox.close()


async def test_after_a_full_disk_appends_work_again_once_there_is_room(tmp_path):
    outbox = Outbox(tmp_path / "o.db", max_bytes=200_000)
    taken = await fill(outbox)
    sequence, _ = outbox.read(50)[-1]
    outbox.delete(sequence)
    event = rating()
    await outbox.append(event)
    assert ids(outbox) == [*taken[50:], event.event_id]
    outbox.close()


async def test_an_error_of_the_database_is_an_outbox_error_and_passes_with_its_cause(outbox, tmp_path):
    file = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    file.execute("ALTER TABLE outbox RENAME TO away")
    with pytest.raises(OutboxError, match="no such table"):
        await outbox.append(rating())
    with pytest.raises(OutboxError, match="no such table"):
        outbox.read(1)
    file.execute("ALTER TABLE away RENAME TO outbox")
    file.close()
    await outbox.append(rating())
    assert len(ids(outbox)) == 1


async def test_an_event_that_is_no_unicode_text_is_refused_alone(outbox):
    answers = await asyncio.gather(
        outbox.append(rating(correction={"sql": "\ud800"})), outbox.append(rating()), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [OutboxError, type(None)]


async def test_a_task_that_no_longer_waits_harms_nobody(outbox):
    gone = asyncio.create_task(outbox.append(rating()))
    await asyncio.sleep(0)
    gone.cancel()
    await outbox.append(rating())
    assert gone.cancelled()


async def test_close_writes_what_is_queued_and_refuses_what_comes_later(tmp_path):
    outbox = Outbox(tmp_path / "o.db")
    waiting = [asyncio.create_task(outbox.append(rating())) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.to_thread(outbox.close)
    await asyncio.gather(*waiting)
    with pytest.raises(OutboxError, match="closed"):
        await outbox.append(rating())
    outbox.close()
    again = Outbox(tmp_path / "o.db")
    assert len(ids(again)) == 50
    again.close()


async def test_a_check_writes_to_the_disk_and_leaves_nothing_behind(outbox, tmp_path):
    await outbox.append(rating())
    outbox._wrote -= 2
    log = tmp_path / "outbox.db-wal"
    before = log.stat().st_size
    await outbox.check()
    assert log.stat().st_size > before
    await outbox.append(rating())
    assert outbox.depth().events == len(ids(outbox)) == 2


async def test_a_check_after_a_write_that_succeeded_costs_none(outbox, tmp_path):
    await outbox.append(rating())
    before = (tmp_path / "outbox.db-wal").stat().st_size
    await outbox.check()
    assert (tmp_path / "outbox.db-wal").stat().st_size == before


async def test_a_check_tells_that_the_disk_is_full_until_there_is_room(tmp_path):
    outbox = Outbox(tmp_path / "o.db", max_bytes=200_000)
    await outbox.check()
    await fill(outbox)
    for _ in range(2):
        with pytest.raises(OutboxError, match="full"):
            await outbox.check()
    outbox.delete(outbox.read(50)[-1][0])
    await outbox.check()
    outbox.close()
    with pytest.raises(OutboxError, match="closed"):
        await outbox.check()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "o.db").write_bytes(b"no database, but long enough to have a header of a hundred bytes" * 9)
    with pytest.raises(OutboxError, match="not a database"):
        Outbox(tmp_path / "o.db")


def test_after_kill_9_everything_acknowledged_is_there(tmp_path):
    path = tmp_path / "o.db"
    acknowledged = set()
    for acknowledgements in (1, 50, 333, 1_000):
        process = subprocess.Popen(
            [sys.executable, "-c", APPEND_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged |= {process.stdout.readline().strip() for _ in range(acknowledgements)}
        process.kill()
        # What had been printed before the kill was acknowledged too; the last line may be cut short.
        acknowledged |= {
            line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")
        }
        process.stdout.close()
        process.wait()
    outbox = Outbox(path)
    found = ids(outbox)
    outbox.close()
    assert len(acknowledged) > 1_384 - 4
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))


def test_the_log_goes_into_the_file_when_events_are_deleted_and_not_when_they_are_appended(outbox, tmp_path):
    file = tmp_path / "outbox.db"
    outbox.write([b"x" * 2**20] * 5)
    assert file.stat().st_size < 2**20
    outbox.delete(5)
    assert file.stat().st_size > 5 * 2**20


def test_the_log_does_not_grow_for_ever_while_nothing_is_deleted(outbox, tmp_path):
    for _ in range(40):
        outbox.write([b"x" * 2**20])
    assert (tmp_path / "outbox.db-wal").stat().st_size < 20 * 2**20
