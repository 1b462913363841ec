"""A file on standard input, its text as JSON on standard output: `{"text": …, "paged": …}`, or `{"error": …}`."""

import json
import resource
import sys

from tools.parsing.errors import ParseError


def main() -> None:
    """`python -m tools.parsing KIND BYTES PAGES CHARACTERS SECONDS MEMORY`."""
    kind = sys.argv[1]
    most_bytes, pages, characters, seconds, memory = map(int, sys.argv[2:])
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 12 * characters + 4_096),  # JSON spells a character with 12 at most
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    try:
        text, paged = _parse(kind, sys.stdin.buffer.read(most_bytes), pages)
        answer = {"text": text, "paged": paged}
        if len(text) > characters:
            answer = {"error": f"it holds {len(text):,} characters, and {characters:,} are allowed"}
    except ParseError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": f"reading it takes more than {memory // 2**20:,} MiB of memory"}
    except RecursionError:
        answer = {"error": "it is nested too deeply"}
    json.dump(answer, sys.stdout)


def _parse(kind: str, data: bytes, pages: int) -> tuple[str, bool]:
    """The text, with a form feed between two pages, and whether the file has pages of its own."""
    match kind:
        case "pdf":
            from tools.parsing import pdf  # noqa: PLC0415  # each kind needs a library of its own

            return pdf.text(data, most_pages=pages), True
        case "docx":
            from tools.parsing import docx  # noqa: PLC0415  # as above

            text = docx.text(data)
        case "html":
            from tools.parsing import html  # noqa: PLC0415  # as above

            text = html.text(data)
        case _:
            raise AssertionError(f"no such kind: {kind}")
    return text, "\f" in text


if __name__ == "__main__":
    main()
