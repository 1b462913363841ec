"""Events to measure with: requests of 3.5 kB with token ids and logprobs; ratings of 400 B.

Each event is another (`event_id`, ids, time), sorted by time as in production. It is one of some hundred prepared texts
with ids of its own put in: what a compressor or an index sees is no repetition of one event.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

from feedback.events import Message, ModelCall, Rating, RequestFinished, Sampling, new_id

RATED = 10  # each tenth event is a rating
_SEED = 20_261_123
_VARIANTS = 200
_PROMPT_TOKENS, _ANSWER_TOKENS = 160, 60
_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_SYSTEM = (
    "You answer questions about an insurer's database with one SQL query, or say why the tables cannot tell. "
    "Tables: claims(id, policy_id, opened, closed, status, amount), policies(id, customer_id, product, premium), "
    "customers(id, name, city, joined). Notes: an open claim has no closing date; amounts are in euros."
)
_EVENT, _REQUEST, _EPISODE, _AT = "EVENT-ID", "REQUEST-ID", "EPISODE-ID", "2026-01-01T00:00:00Z"


def stream() -> Iterator[bytes]:
    """Events as an outbox holds them, without end. Ratings are of the request before."""
    chance = random.Random(_SEED)
    requests = [_request(chance).model_dump_json() for _ in range(_VARIANTS)]
    rating = _rating().model_dump_json()
    request_id, episode_id = new_id("chatcmpl-"), new_id("ep-")
    for number in count():
        time = (_TIME + timedelta(milliseconds=number)).isoformat(timespec="microseconds")
        if number % RATED == RATED - 1:
            text = rating
        else:
            text = requests[number % _VARIANTS]
            request_id, episode_id = new_id("chatcmpl-"), new_id("ep-")
        text = text.replace(_EVENT, new_id(), 1).replace(_AT, time, 1)
        yield text.replace(_REQUEST, request_id, 1).replace(_EPISODE, episode_id, 1).encode()


def _request(chance: random.Random) -> RequestFinished:
    question = f"How many claims above {chance.randrange(100_000)} euros were opened in 20{chance.randrange(10, 27)}?"
    answer = f'{{"sql": "SELECT count(*) FROM claims WHERE amount > {chance.randrange(100_000)}"}}'  # noqa: S608  # a text
    call = ModelCall(
        policy="sql-analyst@3f2a90c1d4e5b678",
        messages=(Message(role="system", content=_SYSTEM), Message(role="user", content=question)),
        sampling=Sampling(seed=chance.randrange(2**31)),
        text=answer,
        prompt_token_ids=tuple(chance.randrange(49_152) for _ in range(_PROMPT_TOKENS)),
        completion_token_ids=tuple(chance.randrange(49_152) for _ in range(_ANSWER_TOKENS)),
        logprobs=tuple(-round(chance.expovariate(4), 6) for _ in range(_ANSWER_TOKENS)),
        finish_reason="stop",
        started=_TIME,
        time_to_first_token=0.0213,
        latency=0.4127,
    )
    return RequestFinished(
        event_id=_EVENT,
        time=_TIME,
        tenant="acme",
        request_id=_REQUEST,
        episode_id=_EPISODE,
        trace_id=f"{chance.getrandbits(128):032x}",
        agent="sql-analyst",
        policy="sql-analyst@3f2a90c1d4e5b678",
        caller="claims-app",
        input=(Message(role="user", content=question),),
        output=answer,
        status="completed",
        calls=(call,),
        latency=0.4302,
    )


def _rating() -> Rating:
    return Rating(
        event_id=_EVENT,
        time=_TIME,
        tenant="acme",
        rater="ada",
        request_id=_REQUEST,
        episode_id=_EPISODE,
        value=False,
        comment="see the monthly report",
    )
