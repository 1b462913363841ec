"""The demo's employees: a script that knows the gold, and asks, rates and corrects through the public API only.

What it imitates: people ask about their own work, and rate an answer by looking at what it returns. In one of two
departments somebody can write SQL; more people know what the right result is; some only shake their heads. One rating
in ten is wrong. Some questions are asked by two people.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

from deploy.insurer import gold
from domains.insurance.questions import Question
from tools.sql import Database
from trainer.rewards import Scorer

ERROR_RATE = 0.10  # of ratings
SECOND_OPINION = 0.15  # of questions are asked by two employees
CORRECTS = 0.90  # of wrong answers are corrected, with the rows that a right one returns; the rest are only rated down
WRITES_SQL = 0.40  # … with SQL instead, in a department where somebody can
DEPARTMENTS = (("amara", "bruno", "chen"), ("dalia", "emil", "fatou"))  # in the first somebody writes SQL
NAMES = tuple(name for department in DEPARTMENTS for name in department)
_MOST_ROWS = 60  # nobody types more into a correction
CONCURRENCY = 16  # what vLLM generates at once by default


@dataclass(frozen=True)
class Visit:
    """One employee asks one question. The draws are made beforehand, so that the seed decides and timing does not."""

    question: Question
    employee: str
    mistaken: bool
    means: float  # below WRITES_SQL: writes SQL, where somebody can; below CORRECTS: knows the rows
    other: Question  # whose answer a mistaken employee gives


def plan(questions: Sequence[Question], seed: int) -> list[Visit]:
    """Who asks what, and who errs how."""
    generator = random.Random(seed)  # a simulation
    shuffled = generator.sample(list(questions), len(questions))
    kinds = {
        question.template: question.level for question in shuffled
    }  # dealt out so that both ask easy and hard
    asks = {
        kind: DEPARTMENTS[n % len(DEPARTMENTS)] for n, kind in enumerate(sorted(kinds, key=kinds.__getitem__))
    }
    visits = []
    for question in shuffled:
        people = generator.sample(asks[question.template], 2 if generator.random() < SECOND_OPINION else 1)
        for employee in people:
            mistaken, means = generator.random() < ERROR_RATE, generator.random()
            visits.append(Visit(question, employee, mistaken, means, generator.choice(shuffled)))
    return visits


def rating(visit: Visit, text: str, production: Database) -> dict[str, Any]:
    """What the employee sends to `/v1/feedback` about an answer, without the request id."""
    reference = gold(visit.question)
    right = Scorer([production]).score(text, reference).correct
    if right:
        return {"value": not visit.mistaken}
    if visit.mistaken and visit.means < 0.5:
        return {"value": True}  # did not look closely
    if visit.mistaken:
        reference = gold(visit.other)  # mixed two questions up
    correction = _correction(visit, reference, production)
    return {"value": False, **({"correction": correction} if correction else {})}


def _correction(visit: Visit, reference: dict[str, str], production: Database) -> dict[str, Any] | None:
    if visit.means >= CORRECTS:
        return None
    writes = visit.employee in DEPARTMENTS[0] and visit.means < WRITES_SQL
    if writes or "refusal" in reference:  # to say that there is no answer takes no SQL
        return dict(reference)
    rows = production.query(reference["sql"]).rows
    return {"rows": [list(row) for row in rows]} if len(rows) <= _MOST_ROWS else None


async def work(
    base_url: str,
    keys: dict[str, str],
    visits: Sequence[Visit],
    *,
    agent: str,
    production: Database,
    done: Callable[[], None],
) -> Counter[str]:
    """Make all visits, some at a time; count what was done. Errors of the API end it: the demo must not hide them."""
    clients = {name: AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) for name, key in keys.items()}
    gate, counts = asyncio.Semaphore(CONCURRENCY), Counter[str]()

    async def one(visit: Visit) -> None:
        client = clients[visit.employee]
        async with gate:
            completion = await client.chat.completions.create(
                model=agent, messages=[{"role": "user", "content": visit.question.text}]
            )
            opinion = await asyncio.to_thread(
                rating, visit, completion.choices[0].message.content or "", production
            )
            await client.post(
                "/feedback", cast_to=object, body={"request_id": completion.id, "source": "demo", **opinion}
            )
        counts["asked"] += 1
        counts["rated up" if opinion["value"] else "rated down"] += 1
        if "correction" in opinion:
            counts[f"corrected with {next(iter(opinion['correction']))}"] += 1
        counts["mistaken"] += visit.mistaken
        done()

    try:
        async with asyncio.TaskGroup() as group:
            for visit in visits:
                group.create_task(one(visit))
    finally:
        for client in clients.values():
            await client.close()
    return counts
