"""The commands, by subject. They import what they need when they run, so that `--help` answers at once."""

from pathlib import Path

import typer

from deploy.settings import Settings, load


def settings_of(context: typer.Context) -> Settings:
    """The settings that `--config` names. Raises `SettingsError`."""
    path: Path | None = context.obj
    return load(path)
