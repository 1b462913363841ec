"""policies, promote, rollback, status: which policy answers, asked of and told to the running gateway."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.commands import settings_of

Reason = Annotated[str, typer.Option(help="Kept with the change, for whoever asks later.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(policies)
    app.command()(promote)
    app.command()(rollback)
    app.command()(status)


def policies(
    context: typer.Context, agent: Annotated[str, typer.Option(help="Which agent.")] = "sql-analyst"
) -> None:
    """List an agent's policies: which answers, which wait, which were tried."""
    from deploy.client import Client

    answer = Client(settings_of(context)).get("/v1/policies", agent=agent)
    table = Table(Column("policy", no_wrap=True), "state", "loaded", "since", "by", "reason", title=agent)
    for row in answer["data"]:
        last = row["history"][-1]
        loaded = "yes" if row["loaded"] else ""
        table.add_row(row["policy"], row["state"], loaded, row["since"][:16], last["by"], last["reason"])
    Console().print(table)


def promote(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help="An evaluated policy (agent@digest).")],
    reason: Reason = "promoted from the command line",
) -> None:
    """Let a policy answer from now on. It is loaded and checked first; no request is dropped.

    flywheel promote sql-analyst@3f9a0c21d4e7 --reason "the gate passed it"
    """
    from deploy.client import Client, segment

    answer = Client(settings_of(context)).post(f"/v1/policies/{segment(policy)}/promote", {"reason": reason})
    _print_swap(answer)


def rollback(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="Which agent.")] = "sql-analyst",
    reason: Reason = "rolled back from the command line",
) -> None:
    """Go back to the policy that answered before. It is still loaded: this takes effect at once."""
    from deploy.client import Client, segment

    answer = Client(settings_of(context)).post(f"/v1/agents/{segment(agent)}/rollback", {"reason": reason})
    _print_swap(answer)


def _print_swap(swap: dict[str, Any]) -> None:
    seconds = swap["load_seconds"] + swap["probe_seconds"] + swap["flip_seconds"]
    Console(soft_wrap=True).print(
        f"{swap['policy']} answers now, in place of {swap['previous']}; ready after {seconds:.2f} s",
        highlight=False,
    )


def status(context: typer.Context) -> None:
    """What the running gateway says of itself: agents, policies, requests in progress, what waits in the outbox.

    Then what is wrong with the store or with Kafka, and how to mend it.
    """
    from deploy import pipe
    from deploy.client import Client

    settings = settings_of(context)
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False)
    for name, value in _flat(Client(settings).get("/v1/status")):
        table.add_row(name, value)
    Console().print(table)
    for finding in (*pipe.store(settings), *pipe.kafka(settings)):
        if finding.verdict != "ok":
            finding.print(Console(soft_wrap=True))


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [row for key, item in value.items() for row in _flat(item, f"{name}.{key}" if name else key)]
    if value in ({}, []):
        return [(name, "none")]
    return [(name, "" if value is None else str(value))]
