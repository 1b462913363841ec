"""The library of documents from the operator's side: files and folders go in, for one tenant."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.errors import FlywheelError
from deploy.settings import Settings
from tools.documents.ingest import IngestError, ingest
from tools.documents.library import Library, UnknownDocumentError
from tools.embedding import EmbeddingError, open_embedder
from tools.errors import ToolError, ToolUnavailableError


@contextmanager
def opened(settings: Settings, *, meaning: bool = False) -> Iterator[Library]:
    """The library; with its embedder only for `meaning`, as that takes a moment to load. Raises `FlywheelError`."""
    try:
        embedder = open_embedder(settings.embedding) if meaning else None
        yield Library(settings.documents.folder, embedder)
    except (IngestError, UnknownDocumentError, EmbeddingError, ToolError, ToolUnavailableError) as error:
        raise FlywheelError(str(error)) from error
    except OSError as error:
        raise FlywheelError(f"the library {settings.documents.folder} failed: {error}") from error


def add(library: Library, paths: Iterable[Path], tenant: str, console: Console) -> None:
    """Add files, and all files in folders, under their names (in a folder: their paths from there).

    A file that cannot be read keeps none of the others out. Raises `FlywheelError` at the end where there was one.
    """
    files = [found for path in paths for found in _files(path)]
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    failed = 0
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(files))
        for name, path in files:
            progress.update(bar, description=name)
            try:
                document = ingest(path, name=name)
            except IngestError as error:
                failed += 1
                progress.console.print(str(error), style="red", markup=False, highlight=False)
            else:
                entry = library.add(document, tenant, source=str(path.resolve()))
                line = f"{entry.id}  {entry.name}  {entry.pages} pages, {entry.characters:,} characters"
                progress.console.print(line, markup=False, highlight=False)
            progress.advance(bar)
    if failed:
        raise FlywheelError(f"{failed} of {len(files)} files were not added; each reason stands above")


def _files(path: Path) -> list[tuple[str, Path]]:
    """Names and paths; hidden files of a folder are none of the documents in it. Raises `FlywheelError`."""
    if not path.is_dir():
        return [(path.name, path)]
    hidden = re.compile(r"(^|/)\.")
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    found = {name: file for name, file in found.items() if not hidden.search(name)}
    if not found:
        raise FlywheelError(f"there is no file in {path}")
    return sorted(found.items())
