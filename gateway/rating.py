"""Ratings, from what somebody says to what is recorded, by whichever door it came."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from agents.manifest import Agent
from agents.metrics import DEFAULT_METRICS
from feedback.events import CLIENT_ID, Rating
from feedback.store import Filter, Key, Page, Ratings
from gateway.errors import EXPECTED, ApiError, to_api_error
from gateway.opinion import Opinion
from gateway.rating_checks import checked_correction, checked_value, early_value, rows_checked
from gateway.recorder import Recorder
from gateway.records import Records
from gateway.targets import Target, Targets
from gateway.telemetry import Telemetry

_LONGEST = 200  # characters of a rater
_UNKNOWN = "unknown"  # the agent of what has not been recorded yet, in metrics
_ELSEWHERE = "elsewhere"  # the agents of others there: how many they are, and their names, is theirs to say


class Weighed(NamedTuple):
    """A rating that can be taken. `matched`: what it is about has been recorded, so that it was fully checked."""

    rating: Rating
    target: Target

    @property
    def matched(self) -> bool:
        """See the class."""
        return self.target.agent is not None


class Rater:
    """Takes and takes back ratings. Methods raise `ApiError`, `StoreError`, `OutboxError`."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        recorder: Recorder,
        records: Records,
        ratings: Ratings,
        telemetry: Telemetry,
    ) -> None:
        self._agents = agents
        self._targets = Targets(recorder, records)
        self._recorder = recorder
        self._records = records
        self._ratings = ratings
        self._telemetry = telemetry

    async def weigh(self, caller: Key, said: Opinion, before: Sequence[Rating] = ()) -> Weighed:
        """Find what it is about, and check it against what may be said of that. Records nothing.

        `before` is what will be recorded before it and is not on its way yet.
        """
        target = await self._targets.find(said.about, caller.tenant)
        if target.agent is None:
            value = early_value(self._agents.values(), said.name, target.level, said.values)
            correction = rows_checked(said.correction)
        else:
            agent = self._agents.get(target.agent)
            metrics = DEFAULT_METRICS if agent is None else agent.metrics
            value = checked_value(metrics, target.agent, said.name, target.level, said.values)
            correction = said.correction
            if correction is not None:  # parsing a query takes its time
                correction = await asyncio.to_thread(checked_correction, correction, agent)
        rating = Rating(
            tenant=caller.tenant,
            rater=rater_of(caller, said.rater),
            rater_kind=said.rater_kind,
            source=said.source,
            request_id=target.request_id,
            call=target.call,
            episode_id=target.episode_id,
            name=said.name,
            value=value,
            correction=correction,
            comment=said.comment,
            tags=dict(said.tags),
        )
        if said.apart and value is False and correction is None:
            rating = await asyncio.to_thread(self._with_correction, rating, before)
        return Weighed(rating, target)

    def _with_correction(self, rating: Rating, before: Sequence[Rating]) -> Rating:
        """With that which the same person gave before. Not a redacted one, which it would pass for whole."""
        same = [one for one in before if rating.on_the_same(one)]
        last = same[-1] if same else self._records.last_word(rating)
        if last is None or last.correction is None or last.redacted:
            return rating
        return rating.model_copy(update={"correction": last.correction})

    async def record(self, weighed: Sequence[Weighed]) -> None:
        """Return when all of them are on the disk; where that fails, some may be."""
        await asyncio.gather(*(self._recorder.rating(one.rating) for one in weighed))
        for rating, target in weighed:
            agent = _ELSEWHERE if target.told else target.agent or _UNKNOWN
            self._telemetry.rated(target.trace_id, agent, rating)

    async def take_each(self, caller: Key, said: Sequence[Callable[[], Opinion]]) -> list[Weighed | ApiError]:
        """Take each that can be taken, together; of the others, why not. In their order: later ones supersede."""
        outcomes: list[Weighed | ApiError] = []
        for one in said:
            before = [other.rating for other in outcomes if isinstance(other, Weighed)]
            outcomes.append(await self._weighed(caller, one, before))
        return await asyncio.gather(*map(self._recorded, outcomes))

    async def _weighed(
        self, caller: Key, said: Callable[[], Opinion], before: Sequence[Rating]
    ) -> Weighed | ApiError:
        try:
            return await self.weigh(caller, said(), before)
        except EXPECTED as error:
            return to_api_error(error)

    async def _recorded(self, one: Weighed | ApiError) -> Weighed | ApiError:
        try:
            await self.record([] if isinstance(one, ApiError) else [one])
        except EXPECTED as error:
            return to_api_error(error)
        return one

    async def find(
        self, feedback_id: str, tenant: str, *, owner: str | None, param: str = "feedback_id"
    ) -> Rating:
        """What was said under this id; with `owner`, by a key of this owner. Raises `ApiError` (404)."""
        found = await asyncio.to_thread(self._records.rating, feedback_id, tenant)
        if found is None or not (owner is None or _speaks_for(owner, found.rater)):
            message = f"There is no feedback {feedback_id!r}."
            raise ApiError(404, message, code="feedback_not_found", param=param)
        return found

    async def page(
        self, wanted: Filter, tenant: str, *, limit: int, after: Rating | None, order: Literal["asc", "desc"]
    ) -> Page:
        """See `Ratings.page`."""
        return await asyncio.to_thread(
            self._ratings.page, wanted, tenant=tenant, limit=limit, after=after, order=order
        )

    async def withdraw(self, *said: Rating) -> None:
        """Take these back, as far as they stand. What has been withdrawn or superseded stays so."""
        standing = [
            rating
            for rating in said
            if not rating.withdrawn and await asyncio.to_thread(self._records.stands, rating)
        ]
        await self.record([Weighed(withdrawal(rating), _target(rating)) for rating in standing])


def rater_of(caller: Key, rater: str | None) -> str:
    """Who is recorded: the owner of the key, or one of those for whom it speaks. Raises `ApiError` (400)."""
    if rater is None:
        return caller.owner
    whole = f"{caller.owner}/{rater}"
    if len(whole) <= _LONGEST:
        return whole
    most = _LONGEST - len(caller.owner) - 1
    raise ApiError(400, f"rater: at most {most} characters.", code="invalid_value", param="rater")


def withdrawal(rating: Rating) -> Rating:
    """What takes a rating back: the same rater says nothing of the same target and metric."""
    kept = {"tenant", "rater", "rater_kind", "source", "request_id", "call", "episode_id", "name"}
    tags = {} if rating.client_id is None else {CLIENT_ID: rating.client_id}
    return Rating(**rating.model_dump(include=kept), value=None, tags=tags)


def _speaks_for(owner: str, rater: str) -> bool:
    return rater == owner or rater.startswith(f"{owner}/")


def _target(rating: Rating) -> Target:
    return Target(rating.request_id, rating.call, rating.episode_id, None)
