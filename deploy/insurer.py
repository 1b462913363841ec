"""The demo's domain in the trainer's terms: its questions as tasks."""

from domains.insurance.questions import Question, Split, questions
from feedback.events import Message
from trainer.tasks import Task


def tasks(split: Split) -> list[Task]:
    """The questions of a split with their gold as reference; template, level and novelty as tags."""
    return [
        Task(
            id=question.id,
            messages=(Message(role="user", content=question.text),),
            reference=gold(question),
            tags={"template": question.template, "level": question.level, "novelty": question.novelty},
        )
        for question in questions(split)
    ]


def gold(question: Question) -> dict[str, str]:
    """The right answer in the agent's own form."""
    if question.sql is not None:
        return {"sql": question.sql}
    assert question.refusal is not None, "a question without SQL has a reason"
    return {"refusal": question.refusal}
