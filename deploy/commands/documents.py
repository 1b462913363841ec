"""documents add, list, show, search, remove: what agents may read. No gateway is needed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.commands import settings_of
from deploy.errors import FlywheelError

_Tenant = Annotated[str, typer.Option(help="Whose documents.")]
_Document = Annotated[
    str, typer.Argument(help="Its id, or its name, with or without the ending.", metavar="DOCUMENT")
]


class Mode(StrEnum):
    """How to search."""

    words = "words"
    exact = "exact"
    fuzzy = "fuzzy"
    regex = "regex"
    meaning = "meaning"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Documents that agents read: PDF, Word (.docx), HTML and plain text."
    )
    group.command()(add)
    group.command("list")(list_documents)
    group.command()(show)
    group.command()(search)
    group.command()(remove)
    app.add_typer(group, name="documents")


def add(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(help="Files; of a folder, all files in it.", metavar="PATH…")
    ],
    tenant: _Tenant = "default",
    *,
    words_only: Annotated[
        bool,
        typer.Option("--words-only", help="Without the search by meaning, which takes longest to prepare."),
    ] = False,
) -> None:
    r"""Read files and keep their text, page by page, ready to be searched.

    The same file again changes nothing; a changed one becomes the newest version of its name.

    \b
    flywheel documents add contract.pdf
    flywheel documents add contracts/ --tenant acme
    """
    from deploy.documents import add as add_files
    from deploy.documents import opened

    with opened(settings_of(context), meaning=not words_only) as library:
        add_files(library, paths, tenant, Console(soft_wrap=True))


def list_documents(context: typer.Context, tenant: _Tenant = "default") -> None:
    """List all documents, with all versions of each."""
    from deploy.documents import opened

    table = Table(
        Column("id", no_wrap=True),
        Column("name", overflow="fold"),
        Column("pages", justify="right"),
        Column("characters", justify="right"),
        "added (UTC)",
        "",
    )
    newest = ""
    with opened(settings_of(context)) as library:
        for entry in library.entries(tenant):
            older = "older version" if entry.name == newest else ""
            newest = entry.name
            added = entry.added[:16].replace("T", " ")
            table.add_row(entry.id, entry.name, str(entry.pages), f"{entry.characters:,}", added, older)
    Console().print(table, markup=False)


def show(
    context: typer.Context,
    document: _Document,
    tenant: _Tenant = "default",
    page: Annotated[int | None, typer.Option(help="The text of this page.", min=1)] = None,
) -> None:
    """Show what is known of a document and its headings, or one page of it."""
    from deploy.documents import opened
    from tools.documents.outline import headings

    console = Console(soft_wrap=True, markup=False, highlight=False)
    with opened(settings_of(context)) as library:
        entry = library.find(document, tenant)
        text = library.open(entry.id, tenant).document
    if page is not None:
        if page > entry.pages:
            raise FlywheelError(f"there is no page {page}: {entry.name} has {entry.pages}")
        console.print(text.page(page))
        return
    pages = "pages" if entry.paged else "parts of equal size, as the file has no pages"
    console.print(f"{entry.name}: {entry.pages} {pages}, {entry.characters:,} characters")
    console.print(f"id {entry.id}, added {entry.added[:16]} from {entry.source}")
    for heading in headings(text):
        console.print(f"{heading.page:>5}  {'  ' * (heading.level - 1)}{heading.text}")


def search(
    context: typer.Context,
    document: _Document,
    query: Annotated[str, typer.Argument(help="Words, a phrase, a pattern or a question.")],
    tenant: _Tenant = "default",
    mode: Annotated[Mode, typer.Option(help="As the agents' tools search.")] = Mode.words,
    limit: Annotated[int, typer.Option(help="Results to show.", min=1, max=20)] = 6,
) -> None:
    r"""Search a document with an agent's own tools; what is printed is what a model would read.

    \b
    flywheel documents search contract.pdf "governing law"
    flywheel documents search contract.pdf "who may end it early?" --mode meaning
    """
    import asyncio

    from deploy.documents import opened
    from tools.documents import tools

    by_meaning = mode is Mode.meaning
    asked = {"query": query, "limit": limit} | ({} if by_meaning else {"mode": mode.value})
    with opened(settings_of(context), meaning=by_meaning) as library:
        offered = {tool.name: tool for tool in tools(library, document, tenant)}
        answer = asyncio.run(offered["search_meaning" if by_meaning else "search_text"].call(asked))
    Console(soft_wrap=True).print(answer, markup=False, highlight=False)


def remove(context: typer.Context, document: _Document, tenant: _Tenant = "default") -> None:
    """Delete a document: by its name the newest version, by an id that version."""
    from deploy.documents import opened

    with opened(settings_of(context)) as library:
        entry = library.remove(document, tenant)
    Console(soft_wrap=True).print(f"removed {entry.name} ({entry.id})", markup=False, highlight=False)
