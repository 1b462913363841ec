"""Page numbers as people write them: "3-5, 9"."""

import re
from collections.abc import Sequence
from itertools import groupby

from tools.errors import ToolError

MOST_PAGES = 20  # in one selection

_PART = re.compile(r"(\d{1,6})(?:\s*[-\u2013]\s*(\d{1,6}))?")


def selected(pages: str, count: int) -> list[int]:
    """The numbers in their order, each once, out of 1 to `count`. Raises `ToolError` for what is not such numbers."""
    found: dict[int, None] = {}
    for part in pages.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ToolError(f'{part.strip()[:40]!r} is no page or range of pages: write for example "3-5, 9"')
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= count:
            raise ToolError(f"there is no page {part.strip()}: the document has pages 1 to {count}")
        if last - first >= MOST_PAGES or len(found) + last - first >= MOST_PAGES:
            raise ToolError(f"at most {MOST_PAGES} pages can be read at once")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def numbers(pages: Sequence[int]) -> str:
    """Ascending numbers as `selected` reads them: 3-5, 9."""
    parts = []
    for _, group in groupby(enumerate(pages), key=lambda pair: pair[1] - pair[0]):
        run = [page for _, page in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(parts)
