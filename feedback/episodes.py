"""Episodes: what was asked, what was done, by which policy, and what people say that it was worth."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from feedback.events import Rating, RequestFinished

# Traffic of our own making. To learn from an evaluation would be to learn the answers of the exam.
_NOT_LEARNED_FROM = frozenset({"evaluation", "load"})


class Episode(NamedTuple):
    """One completed request with everyone's current ratings of it; none when nobody has rated it.

    What is said of a whole episode counts for its last completed request, which holds the result; where the gateway has
    answered in it, for the last of these, whatever others tell of the same episode.
    """

    request: RequestFinished
    ratings: tuple[Rating, ...]

    @property
    def policy(self) -> str:
        """The immutable name of what answered."""
        return self.request.policy


class Episodes(NamedTuple):
    """`excluded` counts what is no episode, by reason.

    `failed` and `cancelled` requests, requests made for `evaluation` or `load` or with `store: false`, requests with
    something `redacted` (a placeholder is not what was asked, nor what is right), and ratings that are `unmatched`:
    their request is not here (not yet, perhaps).
    """

    episodes: tuple[Episode, ...]
    excluded: Counter[str]


def build(requests: Iterable[RequestFinished], current_ratings: Iterable[Rating]) -> Episodes:
    """Join requests with their ratings, in the order of the requests."""
    by_request: defaultdict[tuple[str, str], list[Rating]] = defaultdict(list)
    by_episode: defaultdict[tuple[str, str], list[Rating]] = defaultdict(list)
    for rating in current_ratings:
        if rating.request_id is not None:
            by_request[rating.tenant, rating.request_id].append(rating)
        else:
            by_episode[rating.tenant, str(rating.episode_id)].append(rating)
    episodes: list[Episode] = []
    last: dict[tuple[str, str], int] = {}  # of each episode, the index of its last request in `episodes`
    excluded: Counter[str] = Counter()
    for request in requests:
        ratings = by_request.pop((request.tenant, request.request_id), [])
        purpose = request.metadata.get("purpose")
        if purpose in _NOT_LEARNED_FROM:
            excluded[purpose] += 1
        elif request.metadata.get("store") == "false":
            excluded["not to be stored"] += 1
        elif request.redacted:
            excluded["redacted"] += 1
        elif request.status != "completed":
            excluded[request.status] += 1
        else:
            before = last.get(episode := (request.tenant, request.episode_id))
            if before is None or request.origin == "gateway" or episodes[before].request.origin == "otlp":
                last[episode] = len(episodes)
            episodes.append(Episode(request, tuple(ratings)))
    for episode, index in last.items():
        whole = tuple(by_episode.pop(episode, ()))
        episodes[index] = Episode(episodes[index].request, episodes[index].ratings + whole)
    unmatched = sum(map(len, (*by_request.values(), *by_episode.values())))
    return Episodes(tuple(episodes), excluded + Counter(unmatched=unmatched))  # + leaves out a zero
