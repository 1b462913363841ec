"""People and applications that ask and rate all the while, and remember exactly what they were told."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

MARK = "chaos"  # by this name, what is recorded says which question or rating of ours it was
_QUESTION = "How many claims are open?"
_MESSAGES = [{"role": "user", "content": _QUESTION}]
AGENT, MODEL = "sql-analyst", "base"
_WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"model": AGENT, "messages": _MESSAGES}),
    ("/v1/responses", {"model": AGENT, "input": _QUESTION}),
    ("/v1/chat/completions", {"model": MODEL, "messages": _MESSAGES}),
)
_ENDS = (b'"finish_reason":"stop"', b"event: response.completed")  # from here on a client has its answer
_AT_ONCE = 256
_MOST_SECONDS = aiohttp.ClientTimeout(total=30)
_RATED = 0.25  # of the answers of agents; a plain model declares no metric to rate it by
_RATED_AFTER = 1.0  # seconds, on average


@dataclass
class Told:
    """What was sent, by number, and what came of it: what was acknowledged, and how often what was heard instead."""

    asked: int = 0
    completed: dict[int, str] = field(default_factory=dict)  # number → id of the request
    rated: int = 0
    acknowledged: dict[int, tuple[str, str, bool]] = field(
        default_factory=dict
    )  # → its id, of what, and the value
    answers: Counter[str] = field(default_factory=Counter)
    ratings: Counter[str] = field(default_factory=Counter)


class Clients:
    """Ask in all ways, whole and streamed by turns, and rate some of the answers."""

    def __init__(self, session: aiohttp.ClientSession, chance: random.Random) -> None:
        self.told = Told()
        self._session = session
        self._chance = chance
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._stopped = asyncio.Event()

    async def ask(self, rate: float) -> None:
        """`rate` questions a second on average, at random moments that do not wait for answers, until `stop`.

        It waits while too many are unanswered; so the rate that is reached may be lower. Returns when all have ended.
        """
        clock = asyncio.get_running_loop().time
        due = clock()
        async with asyncio.TaskGroup() as running:
            while not self._stopped.is_set():
                due = max(due + self._chance.expovariate(rate), clock() - 1.0)
                await asyncio.sleep(max(0.0, due - clock()))
                await self._places.acquire()
                rating = None
                if self._chance.random() < _RATED:
                    rating = self._chance.expovariate(1 / _RATED_AFTER), self._chance.random() < 0.5
                running.create_task(self._one(self.told.asked, rating))
                self.told.asked += 1

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopped.set()

    async def _one(self, number: int, rating: tuple[float, bool] | None) -> None:
        path, body = _WAYS[number % len(_WAYS)]
        stream = number // len(_WAYS) % 2 == 0
        request = {**body, "stream": stream, "metadata": {MARK: str(number)}}
        try:
            heard, request_id = await self._ask(path, request)
        finally:
            self._places.release()
        self.told.answers[heard] += 1
        if request_id is None:
            return
        self.told.completed[number] = request_id
        if rating is None or body["model"] == MODEL:
            return
        after, value = rating
        await asyncio.sleep(after)
        self.told.rated += 1
        request = {"request_id": request_id, "value": value, "tags": {MARK: str(number)}}
        heard, feedback_id = await self._rate(request)
        self.told.ratings[heard] += 1
        if feedback_id is not None:
            self.told.acknowledged[number] = feedback_id, request_id, value

    async def _ask(self, path: str, request: dict[str, Any]) -> tuple[str, str | None]:
        """What was heard, and the request's id where the whole answer was."""
        text = bytearray()
        head = None
        try:
            async with self._session.post(path, json=request, timeout=_MOST_SECONDS) as head:
                async for part in head.content.iter_any():
                    text += part
        except (aiohttp.ClientError, TimeoutError) as error:
            if head is None:
                return _broken(error), None
            if not any(end in text for end in _ENDS):
                return "cut", None
        if head.status != 200:
            return _refused(head.status, text), None
        if request["stream"] and not any(end in text for end in _ENDS):
            return "cut, with an error" if b'"error"' in text else "cut", None
        return "complete", head.headers["x-request-id"]

    async def _rate(self, request: dict[str, Any]) -> tuple[str, str | None]:
        """What was heard, and the rating's id where it was acknowledged."""
        try:
            async with self._session.post("/v1/feedback", json=request, timeout=_MOST_SECONDS) as head:
                text = await head.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return _broken(error), None
        if head.status != 200:
            return _refused(head.status, text), None
        return "acknowledged", str(orjson.loads(text)["feedback_id"])


def _broken(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return "nobody listens"
    return "no answer in time" if isinstance(error, TimeoutError) else "cut"


def _refused(status: int, text: bytes | bytearray) -> str:
    try:
        error = orjson.loads(text)["error"]
        return f"{status} {error['code'] or error['type']}"
    except (ValueError, LookupError, TypeError):
        return f"{status}, not in OpenAI's shape"
