"""agents new, check, list, try: make an agent, see whether it is sound, and talk to it."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.commands import settings_of
from deploy.errors import FlywheelError

if TYPE_CHECKING:
    from agents.manifest import Agent


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Agents: make one, see whether it is sound, talk to it.")
    group.command()(new)
    group.command()(check)
    group.command("list")(list_agents)
    group.command("try")(try_agent)
    app.add_typer(group, name="agents")


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What clients will send as their model, e.g. claims-clerk.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where it is written; default: agents/ beside the settings.")
    ] = None,
) -> None:
    """Write a new agent: a manifest with comments, and a prompt.

    flywheel agents new claims-clerk
    """
    from deploy.agents import write

    settings = settings_of(context)
    target = (folder or settings.root / "agents" / name.replace("-", "_")).absolute()
    write(name, target)
    shown = _short(target, settings.root)
    folders = [_short(path, settings.root) for path in settings.agents.folders]
    Console().print(
        f"wrote {shown}/manifest.toml and {shown}/prompt.jinja\n"
        f"next:\n"
        f"  1. write the prompt, and see the comments in the manifest\n"
        f"  2. flywheel agents check {shlex.quote(shown)}\n"
        f"  3. have it served, in {settings.root}/flywheel.toml:\n"
        f"     [agents]\n"
        f"     folders = {json.dumps([*folders, shown])}\n"
        f'  4. flywheel up; then flywheel agents try {name} "…"',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def check(
    context: typer.Context,
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Agents' folders; default: those of [agents] in the settings.")
    ] = None,
) -> None:
    """Say all that is wrong with agents: file, line, and the mend. Exit code 1 when there is something.

    Prompts are rendered, and sources of tools are looked for in the settings. Of MCP servers, it shows the digests of
    the tools that agents are offered: `digests` in the settings pins them.
    """
    from deploy.agents import MANIFEST, tools_of
    from deploy.agents import check as checked
    from deploy.sources import pinned

    settings = settings_of(context)
    console, sound = Console(soft_wrap=True), True
    named = [folder.parent if folder.name == MANIFEST else folder for folder in folders or ()]
    wanted = [folder.absolute() for folder in named] or list(settings.agents.folders)
    for folder, agent, faults in checked(wanted, settings):
        for fault in faults:
            console.print("broken  ", style="red", end="")
            console.print(fault, markup=False, highlight=False)
        sound &= not faults
        if agent is not None and not faults:
            console.print("ok      ", style="green", end="")
            turns = "1 turn" if agent.limits.turns == 1 else f"{agent.limits.turns} turns"
            tools = ", ".join(tools_of(agent)) or "no tools"
            said = f"{agent.name} in {_short(folder, settings.root)}: {turns}, {tools}"
            console.print(said, markup=False, highlight=False)
            for finding in pinned(agent, settings):
                finding.print(console)
                sound &= finding.verdict != "broken"
    raise typer.Exit(0 if sound else 1)


def list_agents(context: typer.Context) -> None:
    """List the agents of the settings and, where the gateway answers, the policy that serves each."""
    from deploy.agents import check as checked
    from deploy.agents import tools_of
    from deploy.client import Client

    settings = settings_of(context)
    console = Console()
    served, reason = {}, ""
    try:
        served = Client(settings).get("/v1/status")["agents"]
    except FlywheelError as error:
        reason = str(error)
    table = Table(
        Column("agent", no_wrap=True), "turns", "tools", "limits", Column("policy", no_wrap=True), "folder"
    )
    for folder, agent, faults in checked(settings.agents.folders, settings):
        shown = _short(folder, settings.root)
        if agent is None or faults:
            table.add_row("?", "", "", "", "", f"{shown}: broken, see `flywheel agents check`")
            continue
        policy = served.get(agent.name, {}).get("active", "" if reason else "not served: restart the gateway")
        tools = ", ".join(tools_of(agent))
        table.add_row(agent.name, str(agent.limits.turns), tools, _limits(agent), policy, shown)
    console.print(table)
    if reason:
        console.print(f"policies are not shown: {reason}", style="dim", markup=False, highlight=False)


def try_agent(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which agent, or a policy (agent@digest).")],
    question: Annotated[str, typer.Argument(help="What to ask it.")],
    database: Annotated[str | None, typer.Option(help="Which of [databases] it works on.")] = None,
    document: Annotated[str | None, typer.Option(help="Which document it reads.")] = None,
) -> None:
    """Ask an agent through the running gateway, and see each step as it happens.

    flywheel agents try sql-analyst "How many claims are open?" --database insurance
    """
    from deploy.client import Client
    from deploy.trying import ask

    settings = settings_of(context)
    said = {"database": database, "document": document}
    metadata = {field: value for field, value in said.items() if value is not None}
    ask(settings.base_url, Client(settings).key, name, question, metadata)


def _limits(agent: "Agent") -> str:
    limits = agent.limits
    total = f", {limits.total_tokens} in all" if limits.total_tokens is not None and limits.turns > 1 else ""
    return f"{agent.tokens_per_call(with_tools=agent.limits.turns > 1)} tokens a turn{total}, {limits.seconds:g} s"


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
