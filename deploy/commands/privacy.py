"""erase: what a person asked and said, or one request, is forgotten."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.commands import settings_of


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(erase)


def erase(
    context: typer.Context,
    person: Annotated[
        str | None, typer.Option(help="An owner of keys or a rater, as ratings name it: ann, crm or crm/ann.")
    ] = None,
    request: Annotated[str | None, typer.Option(help="The id of one answer.", metavar="ID")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose data; default: the operators' own.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the erasure.")] = "",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
) -> None:
    r"""Forget a person, or one request, for good. The gateway must be running.

    Requests with all ratings of them, the person's own ratings, kept answers and dead letters are deleted, and kept out
    if they come later. Data sets that hold any of it are deleted, with the runs that trained on them, and the policies
    that have learnt from them listed.

    Not reached: traces at your collector, requests to other providers, backups, and Kafka's topics until their
    retention ends (a replay of them is filtered).

    \b
    flywheel erase --person ann --reason "asked for it on 3 May"
    flywheel erase --request chatcmpl-0198… --tenant acme --yes
    """
    from deploy.erase import erase as carry_out
    from deploy.erase import opened, wanted
    from feedback.store import Erasures

    console = Console(soft_wrap=True)
    settings = settings_of(context)
    asked = wanted(settings, person, request, tenant, reason)
    with opened(settings) as store:
        if not yes:
            for name, count in Erasures(store).find(asked).items():
                console.print(f"{count} {name}", highlight=False)
            typer.confirm(f"Forget {person or request} of tenant {asked.tenant} for good?", abort=True)
        lines = carry_out(settings, store, asked)
    table = Table("where", Column("found", justify="right"), Column("left", justify="right"), "to be done")
    for line in lines:
        table.add_row(line.where, str(line.found), str(line.left), line.note)
    console.print(table)
