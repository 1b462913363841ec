"""`flywheel export`: from the store into a folder, with a bar that says how far it is."""

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.errors import FlywheelError
from deploy.settings import Settings
from deploy.store import opened
from feedback.export import ExportError, export
from feedback.store.snapshot import Extent


def export_to(
    settings: Settings,
    folder: Path,
    tenant: str | None,
    since: str | None,
    until: str | None,
    console: Console,
) -> None:
    """Export and say what was written. Raises `FlywheelError`."""
    extent = Extent(tenant, _time("--since", since), _time("--until", until))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with opened(settings) as store, Progress(*columns, console=console, transient=True) as progress:
        bars = {
            kind: progress.add_task(kind, total=None) for kind in ("requests", "ratings", "policy_changes")
        }
        try:
            written = export(
                store,
                folder,
                extent,
                lambda kind, done, total: progress.update(bars[kind], completed=done, total=total),
            )
        except (ExportError, OSError) as error:
            raise FlywheelError(f"nothing was exported: {error}") from error
    rows = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in written.items())
    console.print(f"{folder}: {rows}", markup=False, highlight=False)


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FlywheelError(f"{option} {text}: write a day like 2030-01-31, or a time: {error}") from error
