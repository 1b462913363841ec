"""`gen_ai.evaluation.result` becomes a rating of what it names."""

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as g

from feedback import otlp
from feedback.events import Rating, RequestFinished, new_id
from tests.feedback.otlp.conftest import SOURCE, told


def _ratings(app) -> list[Rating]:
    taken = otlp.convert(app.logs(), SOURCE)
    assert (taken.rejected, taken.reasons) == (0, ())
    assert all(isinstance(event, Rating) for event in taken.events)
    return [event for event in taken.events if isinstance(event, Rating)]


class _Here:
    """What is known: some requests by their ids, and by their spans."""

    def __init__(self, *requests):
        self._requests = requests

    def request(self, request_id):
        return next((one for one in self._requests if one.request_id == request_id), None)

    def of_span(self, span_id):
        return next((one for one in self._requests if one.span_id == span_id), None)


def _about(app, *known) -> Rating:
    (event,) = otlp.aimed(otlp.convert(app.logs(), SOURCE), _Here(*known)).events
    assert isinstance(event, Rating)
    return event


def test_a_rating_of_a_response(app):
    app.log(
        {
            g.GEN_AI_EVALUATION_NAME: "relevance",
            g.GEN_AI_EVALUATION_SCORE_VALUE: 0.75,
            g.GEN_AI_EVALUATION_SCORE_LABEL: "good",
            g.GEN_AI_EVALUATION_EXPLANATION: "to the point",
            g.GEN_AI_RESPONSE_ID: "chatcmpl-AbC",
        }
    )
    (rating,) = _ratings(app)
    assert (rating.tenant, rating.rater, rating.rater_kind, rating.source) == (
        "acme",
        "app-key",
        "code",
        "otlp",
    )
    assert (rating.request_id, rating.name, rating.value) == ("chatcmpl-AbC", "relevance", 0.75)
    assert rating.comment == "to the point"
    assert rating.tags == {"gen_ai.evaluation.score.label": "good"}


def test_the_label_is_the_value_where_there_is_no_score_and_our_own_attribute_says_who_judged(app):
    app.evaluate(name="tone", score__label="kind")
    app.log(
        {
            "gen_ai.evaluation.name": "tone",
            "gen_ai.evaluation.score.label": "kind",
            "flywheel.rater.kind": "human",
            g.GEN_AI_RESPONSE_ID: "r",
        }
    )
    taken = otlp.convert(app.logs(), SOURCE)
    assert taken.rejected == 1 and "names no response" in taken.reasons[0]
    (rating,) = taken.events
    assert isinstance(rating, Rating) and (rating.value, rating.rater_kind) == ("kind", "human")


def test_other_log_records_are_ignored(app):
    app.log({"gen_ai.evaluation.name": "x"}, name="gen_ai.client.operation.exception")
    assert _ratings(app) == []


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"score.label": "good"},
        {"name": "tone"},
        {"name": "tone", "score.value": "high"},
        {"name": "tone", "score.label": "good", "explanation": "x" * 20_001},
        {"name": "n" * 201, "score.label": "good"},
    ],
)
def test_what_is_no_rating_is_rejected_with_a_reason(app, said):
    app.log(
        {g.GEN_AI_RESPONSE_ID: "r"} | {f"gen_ai.evaluation.{name}": value for name, value in said.items()}
    )
    taken = otlp.convert(app.logs(), SOURCE)
    assert (taken.events, taken.rejected) == ((), 1) and taken.reasons[0].startswith("an evaluation")


def test_an_event_of_a_span_rates_its_request_or_the_call_that_it_is_in_it(app):
    scored = {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.value": 1}
    with app.span("invoke_agent") as agent:
        with app.chat():
            pass
        with app.chat() as chat:
            chat.add_event("gen_ai.evaluation.result", scored)
        agent.add_event("gen_ai.evaluation.result", scored)
    request, *ratings = told(app)
    assert {(one.request_id, one.episode_id, one.call) for one in ratings} == {
        (request.request_id, request.episode_id, None),
        (request.request_id, request.episode_id, 1),
    }


def test_a_record_on_a_span_rates_its_request_which_need_not_have_come(app):
    with app.span("invoke_agent"):
        app.evaluate(name="tone", score__value=1.0)
    early = _about(app)
    (request,) = told(app)
    assert isinstance(request, RequestFinished) and early.request_id == request.request_id


def test_a_record_on_a_span_with_a_response_rates_that_where_it_has_come(app):
    with app.chat(**{g.GEN_AI_RESPONSE_ID: "chatcmpl-AbC", g.GEN_AI_CONVERSATION_ID: "c"}):
        app.evaluate(name="tone", score__value=1.0)
    (request,) = told(app)
    rating = _about(app, request)
    assert (rating.request_id, rating.episode_id) == ("chatcmpl-AbC", "c")


def test_without_response_and_span_the_conversation_is_rated(app):
    app.log(
        {
            "gen_ai.evaluation.name": "tone",
            "gen_ai.evaluation.score.value": 1.0,
            g.GEN_AI_CONVERSATION_ID: "c",
        }
    )
    (rating,) = _ratings(app)
    assert (rating.request_id, rating.episode_id) == (None, "c")


def test_an_id_of_our_form_is_our_request_where_there_is_one_else_that_of_another_gateway(app):
    ours = new_id("chatcmpl-")
    with app.chat():
        pass
    (told_of,) = told(app)
    request = told_of.model_copy(update={"request_id": ours, "origin": "gateway", "episode_id": "ep-1"})
    said = {
        "gen_ai.evaluation.name": "tone",
        "gen_ai.evaluation.score.value": 1.0,
        g.GEN_AI_RESPONSE_ID: ours,
    }
    app.log(said)
    known = _about(app, request)
    app.log(said)
    unknown = _about(app)
    assert (known.request_id, known.episode_id) == (ours, "ep-1")
    assert unknown.request_id == f"otlp-{ours}"


def test_the_same_record_is_the_same_rating_and_another_one_is_not(app):
    ids = []
    for value in (1.0, 1.0, 0.0):
        app.log(
            {"gen_ai.evaluation.name": "n", "gen_ai.evaluation.score.value": value, g.GEN_AI_RESPONSE_ID: "r"}
        )
        ids += [rating.event_id for rating in _ratings(app)]
    assert ids[0] == ids[1] != ids[2]
