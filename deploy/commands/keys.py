"""keys create, list, limit, revoke: who may call. They work on the store itself, whether the gateway runs or not."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.commands import settings_of
from deploy.errors import FlywheelError
from gateway.scopes import MEANING

_Rate = Annotated[str | None, typer.Option(metavar="N", help="A number, or unlimited.")]
_Money = Annotated[
    str | None, typer.Option(metavar="AMOUNT", help="In the currency of the prices, or unlimited.")
]
_SCOPES = "\n".join(f"    {scope:<9} {meaning}" for scope, meaning in MEANING.items())


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="API keys: who may call, for which tenant, what for, until when, and how much.",
    )
    group.command(
        help=f"""Make a key. Its secret is shown once and stored nowhere.

    Without limits of its own, a key has those of \\[limits.key] in the settings.

    What a scope permits:

    \b
{_SCOPES}

    \b
    flywheel keys create ada
    flywheel keys create ci --scope operate --expires 12h
    flywheel keys create crm --tenant acme --requests-per-minute 60 --tokens-per-day 200000"""
    )(create)
    group.command("list")(list_keys)
    group.command()(limit)
    group.command()(revoke)
    app.add_typer(group, name="keys")


def create(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="Whose calls and ratings these are, e.g. ada or crm-plugin.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help=f"{', '.join(MEANING)}; repeat it. Default: invoke and rate."),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose data it sees.")] = "default",
    expires: Annotated[
        str | None, typer.Option(help="For how long, e.g. 90d or 12h, or until which day: 2030-01-31 (UTC).")
    ] = None,
    *,
    requests_per_minute: _Rate = None,
    tokens_per_minute: _Rate = None,
    tokens_per_day: _Rate = None,
    tokens_per_month: _Rate = None,
    money_per_day: _Money = None,
    money_per_month: _Money = None,
) -> None:
    """Make a key."""
    from deploy.keys import checked_scopes, expiry, opened, quota

    until = None if expires is None else expiry(expires)
    limits = quota(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        tokens_per_month=tokens_per_month,
        money_per_day=money_per_day,
        money_per_month=money_per_month,
    )
    settings = settings_of(context)
    wanted = checked_scopes(scopes or ["invoke", "rate"], tenant, settings)
    with opened(settings) as keys:
        try:
            secret = keys.create(owner, wanted, tenant=tenant, expires=until, quota=limits)
        except ValueError as error:
            raise FlywheelError(str(error)) from error
    Console(soft_wrap=True).print(secret, highlight=False)


def list_keys(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
) -> None:
    """List all keys, without their secrets."""
    from deploy.keys import limits_in_words, opened, state

    table = Table(
        Column("id", no_wrap=True), "owner", "tenant", "scopes", "state", Column("limits", overflow="fold")
    )
    with opened(settings_of(context)) as keys:
        for key in keys.list() if tenant is None else keys.of_tenant(tenant):
            scopes = " ".join(sorted(key.scopes))
            limits = "\n".join(limits_in_words(key.quota))
            table.add_row(key.id, key.owner, key.tenant, scopes, state(key), limits)
    Console().print(table)


def limit(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="As `flywheel keys list` shows it.")],
    *,
    requests_per_minute: _Rate = None,
    tokens_per_minute: _Rate = None,
    tokens_per_day: _Rate = None,
    tokens_per_month: _Rate = None,
    money_per_day: _Money = None,
    money_per_month: _Money = None,
) -> None:
    r"""Give a key other limits. They replace all that it had; what is left out is again the settings' default.

    \b
    flywheel keys limit 3f2a90c1d4e5b678 --requests-per-minute 600
    flywheel keys limit 3f2a90c1d4e5b678 --requests-per-minute unlimited --money-per-month 50
    flywheel keys limit 3f2a90c1d4e5b678
    """
    from deploy.keys import limits_in_words, opened, quota

    limits = quota(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        tokens_per_month=tokens_per_month,
        money_per_day=money_per_day,
        money_per_month=money_per_month,
    )
    with opened(settings_of(context)) as keys:
        if not keys.limit(key_id, limits):
            raise FlywheelError(f"no live key has the id {key_id}: see `flywheel keys list`")
    Console(soft_wrap=True).print(
        f"{key_id}: {', '.join(limits_in_words(limits)) or 'the default limits'}", highlight=False
    )


def revoke(
    context: typer.Context, key_id: Annotated[str, typer.Argument(help="As `flywheel keys list` shows it.")]
) -> None:
    """Refuse a key from now on: a gateway that runs does so within two seconds."""
    from deploy.keys import opened

    with opened(settings_of(context)) as keys:
        if not keys.revoke(key_id):
            raise FlywheelError(f"no live key has the id {key_id}: see `flywheel keys list`")
    Console().print(f"revoked {key_id}", highlight=False)
