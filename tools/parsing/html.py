"""The text of a page of HTML as a reader sees it, by libxml2 (lxml), which mends what is broken and fetches nothing.

Hidden elements (`hidden`, `display: none`, `visibility: hidden`) are left out: nobody has agreed to what they say. A
page ends where CSS breaks one for print (`page-break-before`, `break-after` and the like, in a `style` attribute).
"""

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from tools.parsing.errors import ParseError

_UNSEEN = frozenset("script style head template noscript iframe object svg math select datalist".split())
_LINES = frozenset("div li tr br dt dd section article header footer main nav aside address form hr".split())
_PARAGRAPHS = frozenset("p h1 h2 h3 h4 h5 h6 table ul ol dl blockquote pre figure fieldset".split())
_CELLS = frozenset(("td", "th"))
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BREAK = re.compile(
    r"(?:page-)?break-(before|after)\s*:\s*(?:always|page|left|right|recto|verso)", re.IGNORECASE
)


def text(data: bytes) -> str:
    """The whole text, with a form feed between two pages where it has page breaks. Raises `ParseError`."""
    try:
        data.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = None  # as the page itself declares
    parser = etree.HTMLParser(encoding=encoding, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ParseError(f"it is broken, or no HTML: {error}") from error
    found = "" if root is None else _tidy("".join(_pieces(root)))
    if not found:
        raise ParseError("it holds no text")
    return found


def _pieces(root: Any) -> Iterator[str]:
    unseen = None  # the outermost element of what is not seen
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = element.tag
        if event == "start":
            if unseen is None and _is_unseen(element):
                unseen = element
            if unseen is None:
                yield from _breaks(element, "before")
                yield _around(tag)
                yield _collapsed(element.text, element)
            continue
        if unseen is None:
            yield "\t" if tag in _CELLS else _around(tag) if tag != "br" else ""
            yield from _breaks(element, "after")
        elif unseen is element:
            unseen = None
        if unseen is None and element is not root:
            yield _collapsed(element.tail, element.getparent())


def _is_unseen(element: Any) -> bool:
    return (
        element.tag in _UNSEEN
        or element.get("hidden") is not None
        or _HIDDEN.search(element.get("style", "")) is not None
    )


def _breaks(element: Any, side: str) -> Iterator[str]:
    for found in _BREAK.finditer(element.get("style", "")):
        if found[1].lower() == side:
            yield "\f"


def _around(tag: str) -> str:
    return "\n\n" if tag in _PARAGRAPHS else "\n" if tag in _LINES else ""


def _collapsed(words: str | None, parent: Any) -> str:
    """White space as HTML shows it: a blank, but in `pre`."""
    if not words:
        return ""
    if parent.tag in {"pre", "textarea"} or any(parent.iterancestors("pre")):
        return words
    return re.sub(r"[ \t\r\n\f]+", " ", words)


def _tidy(found: str) -> str:
    """No blanks at the ends of lines, one empty line between paragraphs, nothing empty at the ends."""
    found = re.sub(r"[ \t\xa0]*\n[ \xa0]*", "\n", found)
    found = re.sub(r"\n{3,}", "\n\n", found)
    found = re.sub(r"[ \t\n]*\f[ \t\n]*", "\f", found)
    return found.strip()
