"""curate, train, evaluate, demo: from ratings to a better policy."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.commands import settings_of
from deploy.errors import FlywheelError

_ON_TASKS = "On a task file"
AgentOption = Annotated[str, typer.Option(help="Which agent.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(curate)
    app.command()(train)
    app.command()(evaluate)
    app.command()(demo)


def curate(context: typer.Context, agent: _ON_TASKS = "On a task file"
AgentOption = "sql-analyst") -> None:
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
    agent: _ON_TASKS = "On a task file"
AgentOption = "sql-analyst",
    seed: Annotated[int, typer.Option(help="Of everything random in the run.")] = 0,
) -> None:
    """Learn from a data set: a supervised start, then reinforcement. Ends with a registered candidate policy.

    A run that was interrupted goes on where it stopped.
    """
    from deploy import training

    training.train(settings_of(context), agent=agent, dataset=dataset, seed=seed)


def evaluate(
    context: typer.Context,
    policy: Annotated[
        str | None, typer.Argument(help="A candidate, as `flywheel policies` names it.")
    ] = None,
    agent: Annotated[str, typer.Option(help="Which agent.", rich_help_panel=_ON_TASKS)] = "sql-analyst",
    tasks: Annotated[
        Path | None, typer.Option(help="Task file (JSON Lines).", metavar="FILE", rich_help_panel=_ON_TASKS)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="What vLLM serves (base, a policy, an agent's name for its active one), one of [[external]], or with "
            "--url any; `gold` and `wrong` are scripts that answer what the file says is right, or not.",
            metavar="NAME",
            rich_help_panel=_ON_TASKS,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The report; its page and its episodes lie beside it.",
            metavar="REPORT.json",
            rich_help_panel=_ON_TASKS,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another report on the same tasks, to compare with.",
            metavar="OTHER.json",
            rich_help_panel=_ON_TASKS,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many tasks only.", rich_help_panel=_ON_TASKS)
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            help="Draw them at random with this seed, not from the top.",
            metavar="SEED",
            rich_help_panel=_ON_TASKS,
        ),
    ] = None,
    turns: Annotated[
        int | None,
        typer.Option(min=1, help="Calls of the model; 1: without tools.", rich_help_panel=_ON_TASKS),
    ] = None,
    full_context: Annotated[
        bool,
        typer.Option(
            "--full-context", help="Contracts whole in the prompt, without tools.", rich_help_panel=_ON_TASKS
        ),
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --full-context: tokens that the model reads.", rich_help_panel=_ON_TASKS
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="Of the sampling.", rich_help_panel=_ON_TASKS)
    ] = 0.0,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Tasks at once.", rich_help_panel=_ON_TASKS)
    ] = 8,
    url: Annotated[
        str | None,
        typer.Option(
            help="A server that speaks OpenAI's API, e.g. http://127.0.0.1:8080/v1.", rich_help_panel=_ON_TASKS
        ),
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(
            help="The environment variable with its key.", metavar="VARIABLE", rich_help_panel=_ON_TASKS
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Ask all again; else a run goes on where it stopped.", rich_help_panel=_ON_TASKS
        ),
    ] = False,
) -> None:
    """Is it good? In two ways:

    [bold]flywheel evaluate POLICY[/]
    compares a policy with its baselines on held-out questions, and says whether it may be promoted, and why.

    [bold]flywheel evaluate --agent sql-analyst --tasks DIR/tasks.jsonl --model NAME --out REPORT.json[/]
    asks an agent all tasks of a file, with any model, and reports what it got right, with intervals. It changes nothing.
    """
    if policy is not None:
        if tasks or model or out:
            raise FlywheelError("name a POLICY, or --tasks, --model and --out: these are two ways")
        from deploy import training

        training.evaluate(settings_of(context), policy=policy)
        return
    if tasks is None or model is None or out is None:
        raise FlywheelError("name a POLICY, or all of --tasks, --model and --out: see flywheel evaluate --help")
    from deploy.evaluating import Examination, examine

    examine(
        settings_of(context),
        Examination(
            agent=agent,
            tasks=tasks,
            model=model,
            out=out,
            url=url,
            key_variable=key_variable,
            turns=turns,
            full_context=full_context,
            window=window,
            temperature=temperature,
            limit=limit,
            sample=sample,
            concurrency=concurrency,
            fresh=fresh,
            against=against,
        ),
    )


def demo(
    context: typer.Context,
    seed: Annotated[int, typer.Option(help="Of the employees, of the training, of everything.")] = 0,
) -> None:
    """The whole circle by itself: serve, rate by simulated employees, curate, train, evaluate, promote, roll back."""
    from deploy import demo as demonstration

    demonstration.main(settings_of(context), seed)
