"""setup, up, doctor: this machine."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deploy.commands import settings_of

if TYPE_CHECKING:
    from deploy.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(setup)
    app.command()(up)
    app.command()(doctor)


def setup(context: typer.Context) -> None:
    """Make what is missing: the small model's folder, the demo's databases. `make setup` calls it.

    Steps whose result is there are skipped.
    """
    from deploy.setup import setup as make_missing

    console = Console(soft_wrap=True, highlight=False)
    settings = settings_of(context)
    make_missing(settings, console)
    console.print(f"ready: everything is in {settings.var}")


def up(
    context: typer.Context,
    *,
    kafka: Annotated[
        bool,
        typer.Option(
            "--kafka",
            help="Events travel through Kafka into PostgreSQL: both are started too, with their data in var.",
        ),
    ] = False,
) -> None:
    r"""Start vLLM and the gateway and keep them running; Ctrl-C stops all.

    Prints the base URL, an API key (kept in var/key) and a snippet for any OpenAI client. Logs are in var/log.

    With --kafka, Kafka is the one of KAFKA_BOOTSTRAP_SERVERS, or is started from the folder KAFKA_HOME, or in Docker;
    PostgreSQL is started from this machine's own programs. Where the settings name a \[kafka] or a PostgreSQL, that is
    used. All other commands then work on them, until `flywheel up` is called without it.

    flywheel up
    FLYWHEEL_GATEWAY__PORT=9000 flywheel up
    KAFKA_HOME=~/kafka_2.13-4.3.1 flywheel up --kafka
    """
    from deploy import local as services
    from deploy.settings import load

    settings = load(context.obj)
    if kafka:
        settings = services.with_services(settings)
    console = Console(soft_wrap=True, highlight=False)
    try:
        asyncio.run(_up(settings, console, local=kafka))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped")


async def _up(settings: "Settings", console: Console, *, local: bool) -> None:
    from deploy import local as services
    from deploy.setup import setup as make_missing
    from deploy.supervisor import running

    make_missing(settings, console)
    async with running(settings, console, local=local) as system:
        services.choose(settings, local=local)
        console.print(_welcome(system.base_url, system.key, settings), markup=False)
        raise await system.died()


def _welcome(base_url: str, key: str, settings: "Settings") -> str:
    agents = " or ".join(folder.name.replace("_", "-") for folder in settings.agents.folders)
    return f"""
Flywheel is up. Ctrl-C stops it.

    base URL   {base_url}/v1
    API key    {key}
    agents     {agents}

From any OpenAI client:

    from openai import OpenAI
    client = OpenAI(base_url="{base_url}/v1", api_key="{key}")
    answer = client.chat.completions.create(
        model="{agents.split(" or ", 1)[0]}",
        messages=[{{"role": "user", "content": "How many claims are open?"}}],
    )
    print(answer.id, answer.choices[0].message.content)

From another terminal: flywheel chat
"""


def doctor(context: typer.Context) -> None:
    """Look for what is missing or broken on this machine, and say how to mend each. Exit code 1 if something is."""
    from deploy.doctor import examine

    console = Console(soft_wrap=True)
    if not examine(settings_of(context), console):
        raise typer.Exit(1)
