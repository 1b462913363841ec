"""curate, train, demo: from ratings to a better policy."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.commands import settings_of

AgentOption = Annotated[str, typer.Option(help="Which agent.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(curate)
    app.command()(train)
    app.command()(demo)


def curate(context: typer.Context, agent: AgentOption = "sql-analyst") -> None:
    """Make a data set from all ratings in the store: var/datasets/ID.jsonl.

    Each rating becomes part of a sample or is counted under the reason why it does not.
    """
    from deploy.curate import make

    dataset = make(settings_of(context), agent)
    table = Table("from the store", "count", title=f"{len(dataset.curated.samples)} samples")
    for reason, count in sorted(dataset.curated.rejected.items()):
        table.add_row(f"ratings: {reason}", str(count))
    for reason, count in sorted(dataset.excluded.items()):
        table.add_row(f"requests: {reason}", str(count))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(dataset.path, highlight=False)


def train(
    context: typer.Context,
    dataset: Annotated[
        Path | None, typer.Argument(help="A file of `flywheel curate`; default: the newest.")
    ] = None,
    agent: AgentOption = "sql-analyst",
    seed: Annotated[int, typer.Option(help="Of everything random in the run.")] = 0,
) -> None:
    """Learn from a data set: a supervised start, then reinforcement. Ends with a registered candidate policy.

    A run that was interrupted goes on where it stopped.
    """
    from deploy import training

    training.train(settings_of(context), agent=agent, dataset=dataset, seed=seed)


def demo(
    context: typer.Context,
    seed: Annotated[int, typer.Option(help="Of the employees, of the training, of everything.")] = 0,
) -> None:
    """The whole circle by itself: serve, rate by simulated employees, curate, train, evaluate, promote, roll back."""
    from deploy import demo as demonstration

    demonstration.main(settings_of(context), seed)
