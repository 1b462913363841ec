"""What people think can be read page by page by those who may, and taken back by who said it."""

from typing import Any

import httpx
import pytest

from feedback.events import Rating, new_id
from feedback.outbox import OutboxError
from feedback.store import StoreError
from gateway.recorder import Recorder
from tests.contracts.samples import at, rating, request
from tests.gateway.conftest import AGENT, QUESTION, World, until

FEEDBACK = "/v1/feedback"


def _wrote(world: World, *events: Any) -> None:
    assert world.gateway is not None
    world.gateway.store.write(events)


async def _listed(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    response = await client.get(FEEDBACK, params=query)
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


async def test_pages_follow_one_another_from_the_newest_and_leave_nothing_out(live: World) -> None:
    said = [rating(f"r{n}", time=at(n // 3)) for n in range(10)]
    _wrote(live, *said)
    newest_first = [
        one.event_id for one in sorted(said, key=lambda one: (one.time, one.event_id), reverse=True)
    ]
    for order, wanted in (("desc", newest_first), ("asc", newest_first[::-1])):
        found: list[str] = []
        more, query = True, {"limit": "4", "order": order}
        while more:
            page = (await live.http("rev").get(FEEDBACK, params=query)).json()
            ids = [one["feedback_id"] for one in page["data"]]
            assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[-1])
            found += ids
            more, query = page["has_more"], {**query, "after": page["last_id"]}
        assert found == wanted
    empty = (await live.http("rev").get(FEEDBACK, params={"rater": "nobody"})).json()
    assert empty == {"object": "list", "data": [], "has_more": False, "first_id": "", "last_id": ""}


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"request_id": "r1"}, "abcd"),
    ({"episode_id": "e-r1"}, "e"),
    ({"agent": "sql-analyst"}, "abcde"),
    ({"agent": "other"}, "f"),
    ({"name": "useful"}, "b"),
    ({"rater": "bob"}, "c"),
    ({"source": "excel"}, "d"),
    ({"since": at(3).isoformat()}, "cdefg"),
    ({"until": at(3).isoformat()}, "ab"),
    ({"withdrawn": "true"}, "h"),
    ({"request_id": "r1", "name": "correct", "until": at(3).isoformat()}, "a"),
]


async def test_every_filter_narrows_the_list(live: World) -> None:
    said = {
        "a": rating(time=at(1)),
        "b": rating(name="useful", call=0, time=at(2)),
        "c": rating(rater="bob", time=at(3)),
        "d": rating(rater="cat", source="excel", time=at(3)),
        "e": rating(request_id=None, episode_id="e-r1", name="resolved", time=at(4)),
        "f": rating("r2", time=at(5)),
        "g": rating("r3", time=at(6)),
        "h": rating("r4", value=None, time=at(2.5)),
    }
    old = [rating(value=False, time=at(0)), rating("r4", time=at(0))]
    _wrote(live, request("r1"), request("r2", agent="other"), *said.values(), *old)
    names = {one.event_id: name for name, one in said.items()}
    for query, wanted in FILTERS:
        found = await _listed(live.http("rev"), limit=50, **query)
        assert sorted(names[one["feedback_id"]] for one in found) == list(wanted), query


async def test_without_the_scope_of_a_reviewer_one_reads_what_ones_own_key_has_said(live: World) -> None:
    own = [rating(rater="ann"), rating(rater="ann/bea"), rating(rater="ann/Cem")]
    others = [rating(rater=name) for name in ("bob", "ANN/bea", "annette", "annx/bea", "an/n")]
    _wrote(live, *own, *others)
    found = await _listed(live.http("ann"))
    assert {one["rater"] for one in found} == {"ann", "ann/bea", "ann/Cem"}
    assert len(await _listed(live.http("rev"))) == 8
    theirs = others[0].event_id
    assert (await live.http("ann").get(f"{FEEDBACK}/{theirs}")).status_code == 404
    assert (await live.http("ann").get(FEEDBACK, params={"after": theirs})).status_code == 404
    assert (await live.http("rev").get(f"{FEEDBACK}/{theirs}")).json()["rater"] == "bob"


UNUSABLE = [
    ({"limit": "0"}, "limit"),
    ({"limit": "101"}, "limit"),
    ({"order": "up"}, "order"),
    ({"since": "yesterday"}, "since"),
    ({"since": "1700000000"}, "since"),
    ({"until": "-0.5"}, "until"),
    ({"since": "2026-01-01T00:00:00"}, "since"),
    ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
    ({"until": "9999-12-31T23:59:59-14:00"}, "until"),
    ({"who": "ann"}, "who"),
    ({"withdrawn": "perhaps"}, "withdrawn"),
]


async def test_a_query_that_cannot_be_understood_is_refused_by_name(live: World) -> None:
    for query, param in UNUSABLE:
        response = await live.http().get(FEEDBACK, params=query)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    unknown = await live.http().get(FEEDBACK, params={"after": "nowhere"})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "after")


async def _rated(world: World, who: str = "ann", **fields: Any) -> str:
    request_id = fields.pop("request_id", None)
    if request_id is None:
        request_id = (await world.openai(who).chat.completions.create(model=AGENT, messages=QUESTION)).id
    response = await world.http(who).post(FEEDBACK, json={"request_id": request_id, "value": True, **fields})
    return str(response.json()["feedback_id"])


async def test_what_has_been_said_can_be_looked_up_at_once_and_taken_back_as_often_as_one_likes(
    live: World,
) -> None:
    feedback_id = await _rated(live, rater="bea", comment="fine")
    client = live.http()
    found = (await client.get(f"{FEEDBACK}/{feedback_id}")).json()
    assert (found["feedback_id"], found["comment"]) == (feedback_id, "fine")
    for _ in range(2):
        answer = await client.delete(f"{FEEDBACK}/{feedback_id}")
        assert answer.status_code == 200
        assert answer.json() == {"feedback_id": feedback_id, "object": "feedback", "withdrawn": True}

    async def withdrawn() -> list[dict[str, Any]]:
        return await _listed(client, withdrawn="true")

    await until(withdrawn)
    (last,) = await withdrawn()
    assert (last["value"], last["rater"], last["request_id"]) == (None, "ann/bea", found["request_id"])
    assert await _listed(client) == []
    assert (await client.get(f"{FEEDBACK}/{feedback_id}")).json()["value"] is True  # what was said was said
    written = len(await _ratings(live))
    assert (await client.delete(f"{FEEDBACK}/{feedback_id}")).status_code == 200
    assert (await client.delete(f"{FEEDBACK}/{last['feedback_id']}")).status_code == 200
    assert len(await _ratings(live)) == written


async def _ratings(world: World) -> list[Rating]:
    async with world.store() as store:
        return list(store.ratings(tenant="default"))


async def test_taking_back_an_old_word_leaves_the_later_one(live: World) -> None:
    old, new = rating(value=True, time=at(1)), rating(value=False, time=at(2))
    _wrote(live, old, new)
    assert (await live.http().delete(f"{FEEDBACK}/{old.event_id}")).status_code == 200
    assert [one["feedback_id"] for one in await _listed(live.http())] == [new.event_id]


async def test_taking_back_an_old_word_leaves_the_later_one_that_is_still_on_its_way(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live.gateway is not None
    old = rating(value=True, time=at(1))
    _wrote(live, old, request("r1"))
    monkeypatch.setattr(live.gateway.store, "write", _away)
    new = await _rated(live, request_id="r1", value=False)
    assert (await live.http().delete(f"{FEEDBACK}/{old.event_id}")).status_code == 200
    monkeypatch.undo()

    async def landed() -> bool:
        return len(await _ratings(live)) > 1

    await until(landed)
    assert [one["feedback_id"] for one in await _listed(live.http("rev"))] == [new]


def _away(*_: object) -> None:
    raise StoreError("away")


async def test_nobody_takes_back_what_another_has_said(live: World) -> None:
    said = rating(rater="bob")
    _wrote(live, said)
    for who, status in (("ann", 404), ("eve", 404), ("mal", 404), ("rev", 403)):
        assert (await live.http(who).delete(f"{FEEDBACK}/{said.event_id}")).status_code == status
    assert (await live.http().delete(f"{FEEDBACK}/nowhere")).json()["error"]["code"] == "feedback_not_found"
    assert len(await _ratings(live)) == 1


async def test_of_a_batch_each_item_is_answered_by_itself_and_in_its_place(live: World) -> None:
    request_id = (await live.openai().chat.completions.create(model=AGENT, messages=QUESTION)).id
    items: list[Any] = [
        {"request_id": request_id, "value": True},
        {"request_id": "chatcmpl-0", "value": True},
        {"request_id": request_id, "value": "yes"},
        {"request_id": request_id, "value": True, "who": "bob"},
        "rubbish",
        {"request_id": new_id("resp_"), "value": True},
        {"request_id": request_id, "value": False},
    ]
    client = live.http()
    key = {"idempotency-key": "b1"}
    answer = await client.post(f"{FEEDBACK}/batch", json={"items": items}, headers=key)
    data = answer.json()["data"]
    assert answer.status_code == 200
    codes = [one["error"]["code"] if "error" in one else one["matched"] for one in data]
    assert codes == [
        True,
        "request_not_found",
        "invalid_value",
        "unknown_parameter",
        "invalid_value",
        False,
        True,
    ]
    again = await client.post(f"{FEEDBACK}/batch", json={"items": items}, headers=key)
    assert again.json() == answer.json() and again.headers["idempotency-replayed"] == "true"

    async def landed() -> bool:
        return len(await _ratings(live)) == 3

    await until(landed)
    (current,) = await _listed(client, request_id=request_id)
    assert current["feedback_id"] == data[-1]["feedback_id"]  # of one batch as well, the later supersedes


@pytest.mark.parametrize("items", [[], [{}] * 501])
async def test_a_batch_has_its_bounds(live: World, items: list[Any]) -> None:
    response = await live.http().post(f"{FEEDBACK}/batch", json={"items": items})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "items")


async def test_what_the_disk_does_not_take_is_said_of_each_item(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OutboxError("disk full")

    monkeypatch.setattr(Recorder, "rating", full)
    items = [{"request_id": new_id("resp_"), "value": True}] * 2
    answer = await live.http().post(f"{FEEDBACK}/batch", json={"items": items})
    assert [one["error"]["code"] for one in answer.json()["data"]] == ["storage_full"] * 2


async def test_a_batch_that_the_disk_did_not_take_is_no_answer_to_keep_for_its_idempotency_key(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OutboxError("disk full")

    items = [{"request_id": new_id("resp_"), "value": True}, {"request_id": "nowhere", "value": True}]
    told = []
    for times in range(3):
        with monkeypatch.context() as patch:
            if times == 0:
                patch.setattr(Recorder, "rating", full)
            answer = await live.http().post(
                f"{FEEDBACK}/batch", json={"items": items}, headers={"idempotency-key": "k"}
            )
        told.append(answer.json()["data"])
    assert told[0][0]["error"]["code"] == "storage_full"
    assert told[1] == told[2] and "feedback_id" in told[1][0] and "error" in told[1][1]
