"""Files that a task names: they must be there, and in the task file's own folder."""

from pathlib import Path


class TaskFaultError(Exception):
    """What is wrong with one line of a task file; the reader adds the file and the line."""


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`, links followed. Raises `TaskFaultError` where it is elsewhere, or not there."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise TaskFaultError(
            f"{name} lies outside of {folder}: only files below the task file's folder are read"
        )
    if not path.is_file():
        raise TaskFaultError(f"there is no file {path}")
    return path
