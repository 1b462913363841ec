"""Episodes: what was asked, what was done, by which policy, and what people say that it was worth."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from feedback.events import Rating, RequestFinished

# Traffic of our own making. To learn from an evaluation would be to learn the answers of the exam.
_NOT_LEARNED_FROM = frozenset({"evaluation", "load"})


class Episode(NamedTuple):
    """One completed request with everyone's current ratings of it; none when nobody has rated it."""

    request: RequestFinished
    ratings: tuple[Rating, ...]

    @property
    def policy(self) -> str:
        """The immutable name of what answered."""
        return self.request.policy


class Episodes(NamedTuple):
    """`excluded` counts what is no episode, by reason.

    `failed` and `cancelled` requests, requests made for `evaluation` or `load` or with `store: false`, and ratings that
    are `unmatched`: their request is not here (not yet, perhaps).
    """

    episodes: tuple[Episode, ...]
    excluded: Counter[str]


def build(requests: Iterable[RequestFinished], current_ratings: Iterable[Rating]) -> Episodes:
    """Join requests with their ratings, in the order of the requests."""
    by_request: defaultdict[tuple[str, str], list[Rating]] = defaultdict(list)
    for rating in current_ratings:
        by_request[rating.tenant, rating.request_id].append(rating)
    episodes: list[Episode] = []
    excluded: Counter[str] = Counter()
    for request in requests:
        ratings = by_request.pop((request.tenant, request.request_id), [])
        purpose = request.metadata.get("purpose")
        if purpose in _NOT_LEARNED_FROM:
            excluded[purpose] += 1
        elif request.metadata.get("store") == "false":
            excluded["not to be stored"] += 1
        elif request.status != "completed":
            excluded[request.status] += 1
        else:
            episodes.append(Episode(request, tuple(ratings)))
    unmatched = sum(map(len, by_request.values()))
    return Episodes(tuple(episodes), excluded + Counter(unmatched=unmatched))  # + leaves out a zero
