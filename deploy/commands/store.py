"""store analyst: who else may read the store."""

from typing import Annotated

import typer
from rich.console import Console

from deploy.commands import settings_of


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="The store, from the operator's side.")
    group.callback()(lambda: None)  # else a group with one command would be that command
    group.command()(analyst)
    app.add_typer(group, name="store")


def analyst(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the role, e.g. ada: a-z, 0-9 and _.")],
) -> None:
    r"""Let somebody read requests, ratings and policy changes, of all tenants, in the store on PostgreSQL.

    Prints the URL with the password, which is shown once and stored nowhere. To take it back, as the store's own user:

    \b
    DROP OWNED BY ada; DROP ROLE ada;
    """
    import secrets

    from sqlalchemy import make_url

    from deploy.errors import FlywheelError
    from deploy.store import opened
    from feedback.store.roles import grant_reading

    settings, password = settings_of(context), secrets.token_urlsafe(24)
    with opened(settings) as store:
        try:
            grant_reading(store, name, password)
        except ValueError as error:
            raise FlywheelError(
                f"{error}; for people without the store there is `flywheel export`"
            ) from error
    url = make_url(settings.feedback.store_url).set(drivername="postgresql", username=name, password=password)
    Console(soft_wrap=True).print(url.render_as_string(hide_password=False), highlight=False, markup=False)
