"""`flywheel knowledge`: what is added to the settings' knowledge file, from files and from databases, in versions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from deploy.errors import FlywheelError
from deploy.settings import Settings
from tools.embedding import Embedder, EmbeddingError, open_embedder
from tools.errors import ToolError, ToolUnavailableError
from tools.knowledge.files import ENDINGS, read_any
from tools.knowledge.index import Known
from tools.knowledge.items import Item, Kind, KnowledgeError
from tools.knowledge.library import Change, Entry, Library, Version
from tools.knowledge.schema import schema_cards
from tools.knowledge.shelf import index

Progress = Callable[[int, int], None]
Sources = Mapping[str, Sequence[Item]]


def library(settings: Settings) -> Library:
    """The versions, in the folder that is set."""
    return Library(settings.knowledge.library)


@contextmanager
def told() -> Iterator[None]:
    """What can go wrong with knowledge, as a line for whoever asked."""
    try:
        yield
    except (KnowledgeError, EmbeddingError, ToolError, ToolUnavailableError) as error:
        raise FlywheelError(str(error)) from error


def add(
    settings: Settings, read: Sources, folders: Iterable[str], *, tenant: str, progress: Progress
) -> Change:
    """Let each source hold what was read of it, and nothing else; a source under one of `folders` that was not read is
    gone. The new version is served. Raises as `Library.edit` does.
    """
    gone = tuple(f"{folder}/" for folder in folders)

    def changed(entries: Sequence[Entry]) -> list[Entry]:
        kept = [
            entry
            for entry in entries
            if entry.tenant != tenant or not (entry.source in read or entry.source.startswith(gone))
        ]
        return kept + [Entry(item, source, tenant) for source, items in read.items() for item in items]

    return _edit(settings, changed, progress)


def remove(settings: Settings, sources: Sequence[str], *, tenant: str, progress: Progress) -> Change:
    """Drop what came from these files, folders or databases. Raises `FlywheelError` for one that nothing came from."""

    def taken(entry: Entry, source: str) -> bool:
        return entry.tenant == tenant and (entry.source == source or entry.source.startswith(f"{source}/"))

    def changed(entries: Sequence[Entry]) -> list[Entry]:
        for source in sources:
            if not any(taken(entry, source) for entry in entries):
                raise FlywheelError(f"nothing came from {source}: see `flywheel knowledge list`")
        return [entry for entry in entries if not any(taken(entry, source) for source in sources)]

    return _edit(settings, changed, progress)


def use(settings: Settings, name: str) -> None:
    """Serve this version from now on. Raises `KnowledgeError`, and `ToolError` where the server is away."""
    versions = library(settings)
    version, embedder = versions.load(name), _embedder(settings)
    _upload(settings, version, versions.vectors(version, embedder), embedder)
    versions.use(name)


def _edit(
    settings: Settings, changed: Callable[[Sequence[Entry]], list[Entry]], progress: Progress
) -> Change:
    embedder = _embedder(settings)

    def before(version: Version, known: Known) -> None:
        _upload(settings, version, known, embedder)

    return library(settings).edit(changed, embedder, progress=progress, before=before)


def _embedder(settings: Settings) -> Embedder | None:
    return open_embedder(settings.embedding) if settings.knowledge.dense else None


def _upload(settings: Settings, version: Version, known: Known, embedder: Embedder | None) -> None:
    """To a server before it is served, so that no gateway waits for it; a gateway without one indexes for itself."""
    url = settings.knowledge.url
    if url is not None:
        index(settings.knowledge.file, version, embedder=embedder, known=known, url=url)


def from_files(
    settings: Settings, paths: Iterable[Path], *, kind: Kind | None, dialect: str | None
) -> tuple[dict[str, list[Item]], list[str], list[Path]]:
    """What is in these files and folders, by source; the folders' names; and files that were passed over for their
    endings. Raises `FlywheelError` with all files that are at fault.
    """
    read: dict[str, list[Item]] = {}
    folders, passed, faults = [], [], []
    for path in (path.resolve() for path in paths):
        files = [path]
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            files = [file for file in inside if file.suffix in ENDINGS]
            folders.append(_source(settings, path))
            passed += [file for file in inside if file.suffix not in ENDINGS]
        for file in files:
            try:
                read[_source(settings, file)] = read_any(file, kind=kind, dialect=dialect)
            except KnowledgeError as error:
                faults.append(str(error))
    if faults:
        raise FlywheelError("\n".join((*faults, "nothing was added")))
    return read, folders, passed


def from_database(settings: Settings, name: str) -> dict[str, list[Item]]:
    """Schema cards of one of [databases], of what agents may read there. Raises `FlywheelError`."""
    if name not in settings.databases:
        known = ", ".join(settings.databases) or "none"
        raise FlywheelError(f"there is no [databases.{name}] in the settings; there is: {known}")
    options = settings.databases[name]
    try:
        engine = sqlalchemy.create_engine(options.url)
        try:
            cards = schema_cards(
                sqlalchemy.inspect(engine),
                schemas=options.schemas,
                tables=options.tables,
                hidden_columns=options.hidden_columns,
            )
        finally:
            engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise FlywheelError(f"the database {name} cannot be read: {error}") from error
    if not cards:
        raise FlywheelError(f"the database {name} shows no table")
    return {f"database:{name}": cards}


def _source(settings: Settings, path: Path) -> str:
    return str(path.relative_to(settings.root)) if path.is_relative_to(settings.root) else str(path)
