"""Ratings, or the requests beside them, at a steady rate, whatever becomes of the earlier ones.

`python -m bench.feedback.load JSON`, of `Load`; prints the JSON of `Found`. Latencies count from when a rating is sent;
how much later than due that was is told too, for a load generator that is late measures itself.
"""

import asyncio
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import psycopg
import uvloop
from pydantic import BaseModel

from bench.feedback.visible import libpq

QUESTION = [{"role": "user", "content": "How many claims are open?"}]
_RATED = 100  # requests, in turn
_POLL_SECONDS = 0.02
_LONGEST_SECONDS = 30.0


class Load(BaseModel):
    """What to send. `store_url`: send ratings, and look there for them; None: send requests."""

    url: str
    key: str
    model: str
    per_second: float
    seconds: float
    store_url: str | None = None


class Found(BaseModel):
    """What came of it. All but the counts in milliseconds, one for each rating in the order of answers."""

    sent: int = 0
    errors: Counter[str] = Counter()
    late: list[float] = []
    acknowledged: list[float] = []
    visible: list[float] = []


class _Sender:
    def __init__(self, load: Load, session: aiohttp.ClientSession) -> None:
        self.found = Found()
        self.awaited: dict[
            str, float
        ] = {}  # ids of ratings that nobody has seen yet, and when they were sent
        self._load = load
        self._session = session
        self._rated: list[str] = []

    async def warm(self) -> None:
        """Make the requests that are rated, and rate each."""
        self._rated = [(await self.request())["id"] for _ in range(_RATED)]
        if self._load.store_url is not None:
            for number in range(_RATED):
                await self.rating(number)

    async def steadily(self) -> None:
        """Send for as long as is asked, then wait for the answers."""
        load = self._load
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(load.per_second * load.seconds)):
                due = started + number / load.per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(self._one(number, due))

    async def _one(self, number: int, due: float) -> None:
        self.found.sent += 1
        sent = time.perf_counter()
        try:
            if self._load.store_url is None:
                await self.request()
                return
            answer = await self.rating(number)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.found.errors[f"{type(error).__name__}: {error}"] += 1
            return
        self.awaited[answer["feedback_id"]] = sent
        self.found.acknowledged.append(1_000 * (time.perf_counter() - sent))
        self.found.late.append(1_000 * (sent - due))

    async def request(self) -> Any:
        body = {"model": self._load.model, "messages": QUESTION, "max_tokens": 64}
        return await self._post("/v1/chat/completions", body)

    async def rating(self, number: int) -> Any:
        comment = "see the monthly report"
        body = {"request_id": self._rated[number % _RATED], "value": number % 3 == 0, "comment": comment}
        return await self._post("/v1/feedback", body)

    async def _post(self, path: str, body: Any) -> Any:
        async with self._session.post(path, json=body) as response:
            response.raise_for_status()
            return await response.json()

    async def watch(self, store_url: str, sending: asyncio.Task[None]) -> None:
        """Look for ratings until nobody sends any and all have been seen."""
        deadline = None
        async with await psycopg.AsyncConnection.connect(libpq(store_url), autocommit=True) as store:
            while not sending.done() or self.awaited:
                if sending.done():
                    deadline = deadline or time.perf_counter() + _LONGEST_SECONDS
                    if time.perf_counter() > deadline:
                        self.found.errors["not seen in the store"] = len(self.awaited)
                        return
                query = "SELECT event_id FROM ratings WHERE event_id = ANY(%s)"
                rows = await (await store.execute(query, (list(self.awaited),))).fetchall()
                now = time.perf_counter()
                self.found.visible += [1_000 * (now - self.awaited.pop(event_id)) for (event_id,) in rows]
                await asyncio.sleep(_POLL_SECONDS)


async def main(load: Load) -> Found:
    """Send, and watch."""
    headers = {"authorization": f"Bearer {load.key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(load.url, headers=headers, connector=connector) as session:
        sender = _Sender(load, session)
        await sender.warm()
        sending = asyncio.create_task(sender.steadily())
        if load.store_url is not None:
            await sender.watch(load.store_url, sending)
        await sending
        return sender.found


if __name__ == "__main__":
    print(uvloop.run(main(Load.model_validate_json(sys.argv[1]))).model_dump_json())
