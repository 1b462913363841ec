import pytest

from feedback.episodes import build
from tests.contracts.samples import at, rating, request


def test_an_episode_is_a_request_with_everyones_ratings():
    first, second = request("r1"), request("r2", policy="sql-analyst@1")
    ann, bob = rating("r2", rater="ann"), rating("r2", rater="bob")
    episodes, excluded = build([first, second], [ann, bob])
    assert episodes == ((first, ()), (second, (ann, bob)))
    assert episodes[1].policy == "sql-analyst@1"
    assert not excluded


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_was_not_completed_is_no_episode(status):
    episodes, excluded = build([request(status=status, output=None)], [rating()])
    assert episodes == ()
    assert excluded == {status: 1}


@pytest.mark.parametrize("purpose", ["evaluation", "load"])
def test_traffic_of_our_own_making_is_never_learned_from(purpose):
    episodes, excluded = build(
        [request(metadata={"purpose": purpose}), request("r2", metadata={"purpose": "x"})], []
    )
    assert [episode.request.request_id for episode in episodes] == ["r2"]
    assert excluded == {purpose: 1}


def test_a_rating_whose_request_is_not_here_is_counted():
    assert build([request("r1")], [rating("r1"), rating("r2")]).excluded == {"unmatched": 1}


def test_what_is_said_of_a_whole_episode_counts_for_its_last_completed_request():
    asked = [request(f"r{n}", episode_id="e1", time=at(n)) for n in range(3)]
    failed = request("r3", episode_id="e1", status="failed", output=None, time=at(3))
    elsewhere = request("r4", episode_id="e2", time=at(4))
    own, whole = rating("r0"), rating(None, episode_id="e1", name="resolved")
    built = build([*asked, failed, elsewhere], [own, whole])
    assert [episode.ratings for episode in built.episodes] == [(own,), (), (whole,), ()]
    assert built.excluded == {"failed": 1}


def test_what_is_said_of_an_episode_that_is_not_here_is_counted():
    said = [rating(None, episode_id="e9"), rating(None, episode_id="e-r1", tenant="b")]
    assert build([request("r1")], said).excluded == {"unmatched": 2}


def test_a_rating_of_a_call_comes_with_its_request():
    said = rating("r1", call=1, name="useful")
    assert build([request("r1")], [said]).episodes[0].ratings == (said,)


def test_a_rating_of_another_tenant_is_not_joined():
    [episode], excluded = build([request(tenant="a")], [rating(tenant="b")])
    assert episode.ratings == ()
    assert excluded == {"unmatched": 1}


def test_what_is_said_of_an_episode_counts_for_what_the_gateway_answered_in_it_whatever_others_tell():
    ours = request("r1", episode_id="e")
    theirs = [request(name, episode_id="e", origin="otlp", calls=()) for name in ("t1", "t2")]
    said = rating(None, episode_id="e")
    for requests in ([ours, *theirs], [*theirs, ours]):
        rated = [episode.request for episode in build(requests, [said]).episodes if episode.ratings]
        assert rated == [ours]
    assert [episode.ratings for episode in build(theirs, [said]).episodes] == [(), (said,)]
