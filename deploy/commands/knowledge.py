"""knowledge add, list, remove, versions, use: what agents retrieve from, beside the settings' own file."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from deploy.commands import settings_of
from deploy.errors import FlywheelError

# As in tools.knowledge.items, whose package is more than --help should load.
_Kind = Literal["schemas", "examples", "heuristics"]
_Tenant = Annotated[str, typer.Option(help="Whose it is; left out: everybody's.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="What agents retrieve from, beside \\[knowledge] file. A gateway that runs follows within seconds.",
    )
    group.command()(add)
    group.command("list")(list_sources)
    group.command()(remove)
    group.command()(versions)
    group.command()(use)
    app.add_typer(group, name="knowledge")


def add(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files, or folders of them.", metavar="[FILE|FOLDER]...", exists=True),
    ] = None,
    *,
    kind: Annotated[
        _Kind | None, typer.Option(help="Of JSON lines and CSV rows that do not say theirs; CSV: examples.")
    ] = None,
    tenant: _Tenant = "",
    database: Annotated[
        str | None, typer.Option(help="Cards of the tables of this one of \\[databases].", metavar="NAME")
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help="Of .sql files, e.g. postgres or mysql, where they are not understood.")
    ] = None,
) -> None:
    r"""Add what files hold, or replace what they held before: a new version, which is served.

    What has not changed is not embedded again; nothing new, and nothing happens. What is no longer in a file, or no
    file any more in a folder, goes away.

    \b
    .toml     tables schemas, examples and heuristics, as the settings' own file
    .jsonl    objects with kind; text, or question with sql or refusal; keywords
    .csv      the same, by the names in its first row: question,sql
    .sql      a schema card for each CREATE TABLE

    \b
    flywheel knowledge add examples.csv schema.sql
    flywheel knowledge add rules/ --tenant acme
    flywheel knowledge add --database insurance
    """
    from deploy.knowledge import add, from_database, from_files, told

    settings, console = settings_of(context), Console(soft_wrap=True)
    if not paths and database is None:
        raise FlywheelError("say what to add: files, folders, or --database NAME")
    read, folders, passed = from_files(settings, paths or (), kind=kind, dialect=dialect)
    if database is not None:
        read |= from_database(settings, database)
    for file in passed:
        console.print(f"passed over, for its name's ending: {file}", markup=False, highlight=False)
    with told(), _shown(console) as progress:
        change = add(settings, read, folders, tenant=tenant, progress=progress)
    _say(console, change.version, change.added, change.removed, change.embedded)


def list_sources(
    context: typer.Context, tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None
) -> None:
    """List what the served version holds, by source."""
    from deploy.knowledge import library, told

    settings = settings_of(context)
    table = Table(Column("source", overflow="fold"), "tenant", "kind", Column("items", justify="right"))
    with told():
        name = library(settings).active()
        entries = () if name is None else library(settings).load(name).entries
    counts = Counter((entry.source, entry.tenant, entry.item.kind) for entry in entries)
    for (source, owner, kind), number in sorted(counts.items()):
        if tenant in (None, owner):
            table.add_row(source, owner or "(everybody's)", kind, str(number))
    Console().print(table)


def remove(
    context: typer.Context,
    sources: Annotated[
        list[str], typer.Argument(help="As `flywheel knowledge list` shows them, or a folder.")
    ],
    *,
    tenant: _Tenant = "",
) -> None:
    """Remove what came from files, folders or databases: a new version, which is served. Older ones keep it."""
    from deploy.knowledge import remove, told

    console = Console(soft_wrap=True)
    with told(), _shown(console) as progress:
        change = remove(settings_of(context), sources, tenant=tenant, progress=progress)
    _say(console, change.version, change.added, change.removed, change.embedded)


def versions(context: typer.Context) -> None:
    """List all versions, the oldest first."""
    from deploy.knowledge import library, told

    table = Table("version", "made (UTC)", Column("items", justify="right"), "embedder", "")
    with told():
        active, found = library(settings_of(context)).active(), library(settings_of(context)).versions()
    for version in found:
        made = f"{version.created:%Y-%m-%d %H:%M:%S}"
        served = "served" if version.name == active else ""
        table.add_row(version.name, made, str(len(version.entries)), version.embedder or "none", served)
    Console().print(table)


def use(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="As `flywheel knowledge versions` shows it.")],
) -> None:
    """Serve another version, for instance the one before."""
    from deploy.knowledge import told, use

    with told():
        use(settings_of(context), version)
    Console(soft_wrap=True).print(f"version {version} is served", highlight=False)


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar, as soon as there is something to embed."""
    bar = Progress(console=console, transient=True)
    task = bar.add_task("embedding")

    def shown(done: int, of: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=of)

    try:
        yield shown
    finally:
        if bar.live.is_started:
            bar.stop()


def _say(console: Console, version: str, added: int, removed: int, embedded: int) -> None:
    if added == removed == embedded == 0:
        console.print(f"nothing changed: version {version} is served", highlight=False)
        return
    text = f"version {version} is served: {added} items added, {removed} removed, {embedded} texts embedded"
    console.print(text, highlight=False)
