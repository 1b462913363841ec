"""keys create, list, revoke: who may call. They work on the store itself, whether the gateway runs or not."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.commands import settings_of
from deploy.errors import FlywheelError


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="API keys: who may call, for which tenant, and what for.")
    group.command()(create)
    group.command("list")(list_keys)
    group.command()(revoke)
    app.add_typer(group, name="keys")


def create(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="Whose calls and ratings these are, e.g. ada or crm-plugin.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="invoke, rate, operate; repeat it. Default: invoke and rate."),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose data it sees.")] = "default",
) -> None:
    """Make a key. Its secret is shown once and stored nowhere.

    flywheel keys create ada
    flywheel keys create ci --scope operate
    """
    from deploy.keys import opened

    wanted = scopes or ["invoke", "rate"]
    if unknown := sorted(set(wanted) - {"invoke", "rate", "operate"}):
        raise FlywheelError(f"there is no scope {', '.join(unknown)}: there are invoke, rate and operate")
    with opened(settings_of(context)) as keys:
        secret = keys.create(owner, wanted, tenant=tenant)
    Console(soft_wrap=True).print(secret, highlight=False)


def list_keys(context: typer.Context) -> None:
    """List all keys, without their secrets."""
    from deploy.keys import opened

    table = Table(Column("id", no_wrap=True), "owner", "tenant", "scopes", "created", "revoked")
    with opened(settings_of(context)) as keys:
        for key in keys.list():
            revoked = f"{key.revoked:%Y-%m-%d %H:%M}" if key.revoked else ""
            scopes = " ".join(sorted(key.scopes))
            table.add_row(key.id, key.owner, key.tenant, scopes, f"{key.created:%Y-%m-%d %H:%M}", revoked)
    Console().print(table)


def revoke(
    context: typer.Context, key_id: Annotated[str, typer.Argument(help="As `flywheel keys list` shows it.")]
) -> None:
    """Refuse a key from now on."""
    from deploy.keys import opened

    with opened(settings_of(context)) as keys:
        if not keys.revoke(key_id):
            raise FlywheelError(f"no live key has the id {key_id}: see `flywheel keys list`")
    Console().print(f"revoked {key_id}", highlight=False)
