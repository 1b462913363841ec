import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.curation import curate, task_id
from feedback.episodes import Episode, build
from feedback.events import Message
from tests.contracts.samples import at, rating, request


def resolve(reference):
    """A tiny world: `{"sql": "SELECT n"}` gives the row [n]; "slow" cannot be told; all else is malformed."""
    if "rows" in reference:
        return json.dumps(reference["rows"])
    if "refusal" in reference:
        return "refusal"
    sql = reference.get("sql")
    if sql == "slow":
        return None
    if not isinstance(sql, str) or not sql.startswith("SELECT "):
        raise ValueError("syntax error")
    return json.dumps([[int(sql.removeprefix("SELECT "))]])


def episode(request_id, *ratings, question="How many?", answer='{"sql": "SELECT 1"}', **fields):
    asked = request(request_id, question, output=answer, **fields)
    [built], _ = build([asked], [x.model_copy(update={"request_id": request_id}) for x in ratings])
    return built


def yes(rater="ann", **fields):
    return rating(rater=rater, value=True, **fields)


def no(rater="ann", correction=None, **fields):
    return rating(rater=rater, value=False, correction=correction, **fields)


def only(*episodes):
    [sample] = curate(episodes, resolve).samples
    return sample


def test_an_answer_that_was_confirmed_is_the_reference():
    sample = only(episode("r1", yes(), policy="sql-analyst@7"))
    assert sample.reference == {"sql": "SELECT 1"}
    assert (sample.question, sample.support, sample.raters) == ("How many?", 1, ("ann",))
    assert (sample.request_ids, sample.policy) == (("r1",), "sql-analyst@7")
    assert sample.messages == (Message(role="user", content="How many?"),)


@pytest.mark.parametrize("correction", [{"sql": "SELECT 2"}, {"refusal": "no such data"}, {"rows": [[2]]}])
def test_a_correction_is_the_reference(correction):
    assert only(episode("r1", no(correction=correction))).reference == correction


@pytest.mark.parametrize(
    ("rated", "answer", "reason"),
    [
        (no(), '{"sql": "SELECT 1"}', "unverifiable"),
        (yes(), '{"sql": "slow"}', "unverifiable"),
        (yes(), "not JSON", "malformed"),
        (yes(), "[1]", "malformed"),
        (yes(), None, "malformed"),
        (yes(), '{"sql": "SELEKT 1"}', "malformed"),
        (no(correction={"sql": "SELEKT 2"}), '{"sql": "SELECT 1"}', "malformed"),
        (no(correction={}), '{"sql": "SELECT 1"}', "malformed"),
        (rating(value=1.0), '{"sql": "SELECT 1"}', "not_boolean"),
        (rating(value="yes"), '{"sql": "SELECT 1"}', "not_boolean"),
        (rating(value={"polite": True}), '{"sql": "SELECT 1"}', "not_boolean"),
        (yes(call=0), '{"sql": "SELECT 1"}', "of_one_call"),
        (no(call=1, correction={"sql": "SELECT 2"}), '{"sql": "SELECT 1"}', "of_one_call"),
        (no(correction="two, I think"), '{"sql": "SELECT 1"}', "free_text"),
    ],
)
def test_what_cannot_be_checked_is_rejected_with_its_reason(rated, answer, reason):
    curated = curate([episode("r1", rated, answer=answer)], resolve)
    assert curated.samples == ()
    assert curated.rejected == {reason: 1}


def test_what_is_said_of_a_whole_episode_is_evidence_of_its_last_answer():
    asked = [request(f"r{n}", f"Question {n}?", episode_id="e1") for n in range(2)]
    whole = rating(None, episode_id="e1", value=False, correction={"sql": "SELECT 2"})
    [sample] = curate(build(asked, [whole]).episodes, resolve).samples
    assert (sample.question, sample.reference, sample.request_ids) == (
        "Question 1?",
        {"sql": "SELECT 2"},
        ("r1",),
    )


def test_a_rating_of_another_metric_is_none_of_this():
    curated = curate([episode("r1", rating(name="useful", value=True))], resolve)
    assert curated == ((), {})


def test_agreement_is_kept_once_and_counted():
    curated = curate(
        [
            episode("r1", yes("ann", time=at(2)), yes("bob", time=at(3)), question="How many?"),
            episode(
                "r2",
                no("cat", {"rows": [[1]]}, time=at(1)),
                question="  how MANY ",
                answer='{"sql": "SELECT 9"}',
            ),
        ],
        resolve,
    )
    [sample] = curated.samples
    assert (sample.support, sample.raters) == (3, ("ann", "bob", "cat"))
    assert sample.request_ids == ("r1", "r2")
    assert sample.reference == {"sql": "SELECT 1"}, (
        "a query is preferred over rows, though the rows were said first"
    )
    assert curated.rejected == {"duplicate": 2}


def test_what_somebody_wrote_is_kept_rather_than_what_was_confirmed():
    sample = only(
        episode("r1", yes("ann", time=at(1))),
        episode("r2", no("bob", {"sql": "SELECT 1"}, time=at(2)), answer='{"sql": "SELECT 9"}'),
    )
    assert (sample.corrected, sample.request_ids) == (True, ("r1", "r2"))
    assert not only(episode("r1", yes("ann"))).corrected


def test_one_person_who_says_it_twice_is_one_person():
    assert only(episode("r1", yes("ann")), episode("r2", yes("ann"))).support == 1


@pytest.mark.parametrize(
    ("for_one", "for_two", "kept"),
    [(1, 1, False), (2, 1, True), (3, 2, False), (4, 2, True), (1, 2, True), (2, 2, False)],
)
def test_disagreement_is_settled_by_two_people_and_twice_the_rest_or_not_at_all(for_one, for_two, kept):
    ones = [yes(f"a{n}") for n in range(for_one)]
    twos = [no(f"b{n}", {"sql": "SELECT 2"}) for n in range(for_two)]
    curated = curate([episode("r1", *ones, *twos)], resolve)
    if kept:
        [sample] = curated.samples
        assert sample.support == max(for_one, for_two)
        assert curated.rejected == {"outvoted": min(for_one, for_two), "duplicate": sample.support - 1}
    else:
        assert curated.samples == ()
        assert curated.rejected == {"contradictory": for_one + for_two}


def test_an_answer_that_someone_merely_calls_wrong_needs_two_others_who_confirm_it():
    assert curate([episode("r1", yes("ann"), no("bob"))], resolve).rejected == {
        "contradictory": 1,
        "unverifiable": 1,
    }
    assert only(episode("r1", yes("ann"), yes("cat"), no("bob"))).support == 2


def test_calling_a_wrong_answer_wrong_does_not_weaken_its_correction():
    assert only(episode("r1", no("ann"), no("bob", {"sql": "SELECT 2"}))).reference == {"sql": "SELECT 2"}


def test_each_reference_is_resolved_once():
    asked = []

    def counting(reference):
        asked.append(reference)
        return resolve(reference)

    curate([episode(f"r{n}", yes(f"rater{n}")) for n in range(5)], counting)
    assert asked == [{"sql": "SELECT 1"}]


def test_a_question_after_another_is_a_task_of_its_own():
    def conversation(*contents):
        return task_id(Message(role="user", content=content) for content in contents)

    assert conversation("And in 2024?") != conversation("Sales in May?", "And in 2024?")
    assert conversation("Sales in May?", "And in 2024?") == conversation("sales in  May", "and in 2024")


VERDICTS = st.one_of(
    st.builds(yes, rater=st.sampled_from("abcde")),
    st.builds(
        no,
        rater=st.sampled_from("abcde"),
        correction=st.sampled_from(
            [None, {"sql": "SELECT 1"}, {"rows": [[1]]}, {"rows": [[2]]}, {"sql": "?"}]
        ),
    ),
    st.builds(lambda rater: rating(rater=rater, value=0.5), st.sampled_from("abcde")),
)
EPISODES = st.lists(
    st.tuples(
        st.sampled_from(["How many?", "how many", "Which?"]),
        st.sampled_from(['{"sql": "SELECT 1"}', '{"sql": "SELECT 2"}', '{"refusal": "no"}', "rubbish"]),
        st.lists(VERDICTS, max_size=4),
    ),
    max_size=6,
)


@given(drawn=EPISODES, seed=st.integers())
@settings(max_examples=100, deadline=None)
def test_each_rating_is_accounted_for_and_the_order_of_episodes_changes_nothing(drawn, seed):
    episodes = [
        episode(f"r{n}", *ratings, question=question, answer=answer)
        for n, (question, answer, ratings) in enumerate(drawn)
    ]
    curated = curate(episodes, resolve)
    assert len(curated.samples) + curated.rejected.total() == sum(len(ratings) for _, _, ratings in drawn)
    assert len({sample.task_id for sample in curated.samples}) == len(curated.samples)
    shuffled = [
        Episode(asked, ratings[::-1])
        for asked, ratings in random.Random(seed).sample(episodes, len(episodes))
    ]
    assert curate(shuffled, resolve) == curated


def test_what_others_tell_of_is_learned_from_where_it_is_verified_and_could_have_been_asked_here():
    told = {"origin": "otlp", "calls": (), "policy": "sql-analyst@otlp:gpt-large"}
    assert only(episode("r1", yes(), **told)).reference == {"sql": "SELECT 1"}
    unverifiable = curate([episode("r1", yes(), answer="42 claims", **told)], resolve)
    assert (unverifiable.samples, unverifiable.rejected) == ((), {"malformed": 1})
    user = Message(role="user", content="How many?")
    for asked in (
        (),
        (Message(role="system", content="Be brief."), user),
        (user, Message(role="tool", content="1", tool_call_id="c")),
        (Message(role="user", content=({"type": "image"},)),),
    ):
        curated = curate([episode("r1", yes(), **told, input=asked)], resolve)
        assert (curated.samples, curated.rejected) == ((), {"no_question": 1})
