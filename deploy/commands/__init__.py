"""The commands, by subject. They import what they need when they run, so that `--help` answers at once."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from deploy.settings import Settings


def settings_of(context: typer.Context) -> "Settings":
    """The settings that `--config` names, with the services of the last `flywheel up`. Raises `SettingsError`."""
    from deploy.settings import load  # with the options of all that can be set

    path: Path | None = context.obj
    settings = load(path)
    if settings.local_mark.is_file():
        from deploy.local import with_services

        return with_services(settings)
    return settings
