"""A load of concurrent streaming requests that checks every answer: complete, and by one policy from first to last."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from openai import AsyncOpenAI, OpenAIError
from pydantic import BaseModel, ConfigDict


class Answered(BaseModel):
    """One request of the load. Times in seconds since the load began; `error` None: complete."""

    model_config = ConfigDict(frozen=True)

    started: float
    first_token: float | None
    ended: float
    policies: tuple[str, ...]
    error: str | None


class Load:
    """The requests made so far."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.answered: list[Answered] = []
        self._ended = asyncio.Event()

    def now(self) -> float:
        """Seconds since the load began."""
        return time.perf_counter() - self.began

    async def settle(self, requests: int) -> None:
        """Wait until that many more requests have ended."""
        target = len(self.answered) + requests
        while len(self.answered) < target:
            self._ended.clear()
            await self._ended.wait()

    def add(self, one: Answered) -> None:
        """A request has ended."""
        self.answered.append(one)
        self._ended.set()


@asynccontextmanager
async def running(
    base_url: str, key: str, *, agent: str, questions: Sequence[str], concurrency: int
) -> AsyncIterator[Load]:
    """Keep `concurrency` streams going while the block runs; those under way at its end are waited for."""
    load, stop = Load(), asyncio.Event()
    asked = itertools.cycle(questions)
    async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:

        async def worker() -> None:
            while not stop.is_set():
                load.add(await _ask(client, agent, next(asked), load))

        workers = [asyncio.create_task(worker()) for _ in range(concurrency)]
        try:
            yield load
        finally:
            stop.set()
            await asyncio.gather(*workers)


async def _ask(client: AsyncOpenAI, agent: str, question: str, load: Load) -> Answered:
    started, first, policies, finished, error = load.now(), None, dict[str, None](), False, None
    try:
        stream = await client.chat.completions.create(
            model=agent,
            messages=[{"role": "user", "content": question}],
            stream=True,
            metadata={"purpose": "load"},
        )
        policies[stream.response.headers["x-policy"]] = None
        async for chunk in stream:
            policies[chunk.system_fingerprint or "none named"] = None
            for choice in chunk.choices:
                if choice.delta.content and first is None:
                    first = load.now()
                finished = finished or choice.finish_reason is not None
        if not finished:
            error = "truncated: the stream ended without a finish reason"
    except OpenAIError as failure:
        error = str(failure)
    return Answered(
        started=started, first_token=first, ended=load.now(), policies=tuple(policies), error=error
    )
