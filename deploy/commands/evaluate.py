"""evaluate: a policy against its baselines, or an agent with any model on a task file."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands import settings_of
from deploy.errors import FlywheelError

_ON_TASKS = "On a task file"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(evaluate)


def evaluate(  # noqa: PLR0917  # typer calls it by names
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
            help="What vLLM serves (base, a policy, an agent's name for its active one), an external model of "
            "flywheel.toml, or with --url any; `gold` and `wrong` are scripts that answer what the file says is right, "
            "or not.",
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
        typer.Option(
            min=1,
            help="Calls of the model; 1: without tools. Default: the manifest's; 8 where it has tools.",
            rich_help_panel=_ON_TASKS,
        ),
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
            help="A server that speaks OpenAI's API, e.g. http://127.0.0.1:8080/v1.",
            rich_help_panel=_ON_TASKS,
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
    asks an agent all tasks of a file, with any model, and reports what it got right, with intervals.
    """
    if policy is not None:
        if tasks or model or out:
            raise FlywheelError("name a POLICY, or --tasks, --model and --out: these are two ways")
        from deploy import training

        training.evaluate(settings_of(context), policy=policy)
        return
    if tasks is None or model is None or out is None:
        raise FlywheelError(
            "name a POLICY, or all of --tasks, --model and --out: see flywheel evaluate --help"
        )
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
