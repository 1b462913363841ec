"""The `flywheel` command: parses, calls, prints. What it does is in modules that the commands import when they run."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands import (
    agents,
    chat,
    documents,
    evaluate,
    keys,
    knowledge,
    learn,
    machine,
    pipe,
    policies,
    privacy,
    query,
    store,
)
from deploy.errors import FlywheelError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Serve an agent, collect ratings of its answers, and turn them into a better policy.

    A first round:

      [bold]flywheel up[/]                     start; prints the address and a key
      [bold]flywheel chat "How many …?"[/]     ask the agent; prints the request id
      [bold]flywheel rate ID --up[/]           right; or --down, with --correct-sql "…"
      [bold]flywheel curate[/]                 make a data set from all ratings
      [bold]flywheel train[/]                  learn from it: a candidate policy
      [bold]flywheel evaluate POLICY[/]        is it better, on unseen questions?
      [bold]flywheel promote POLICY[/]         let it answer; flywheel rollback undoes it

    [bold]flywheel demo[/] does all of it by itself, with simulated employees. Settings: flywheel.toml.""",
)
machine.add_to(app)
chat.add_to(app)
agents.add_to(app)
learn.add_to(app)
knowledge.add_to(app)
evaluate.add_to(app)
documents.add_to(app)
policies.add_to(app)
keys.add_to(app)
pipe.add_to(app)
store.add_to(app)
query.add_to(app)
privacy.add_to(app)


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings file; default: $FLYWHEEL_CONFIG, else flywheel.toml here or above.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Settings are read by each command when it runs."""
    context.obj = config


def main() -> None:
    """The entry point: an expected failure is a line on standard error and exit code 1."""
    try:
        app(prog_name="flywheel")
    except FlywheelError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"flywheel: {error}", style="red", markup=False, highlight=False
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.CancelledError:  # SIGTERM: what was running has been stopped in order
        sys.exit(143)
