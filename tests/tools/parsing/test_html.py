"""HTML as a reader sees it."""

import pytest

from tools.parsing.errors import ParseError
from tools.parsing.html import text


@pytest.mark.parametrize(
    ("html", "seen"),
    [
        ("<p>One <b>two</b>\n three&amp;</p>four", "One two three&\n\nfour"),
        ("<table><tr><td>a<td>b<tr><td>c</table>", "a\tb\nc"),
        ("a<br>b<ul><li>c<li>d</ul>", "a\nb\n\nc\nd"),
        ("<pre>a\n\nb</pre>", "a\n\nb"),
        (
            "a<script>x</script><style>x</style><!-- x --><p hidden>x</p><p style='Display:None'>x<b>y</b></p>b",
            "ab",
        ),
        ("<p>a</p><hr style='page-break-after: always'><p>b</p>", "a\fb"),
        ("<p style='break-before:page'>a</p><div style='page-break-before: avoid'>b</div>", "a\n\nb"),
        ("<p>a", "a"),
    ],
)
def test_what_is_seen_is_read_and_what_is_hidden_is_not(html: str, seen: str):
    assert text(f"<html><head><title>x</title></head><body>{html}</body></html>".encode()).strip("\f") == seen


def test_a_page_in_another_encoding_is_read_as_it_declares():
    assert (
        text("<html><meta charset='windows-1252'><p>caf\u00e9 \u201cx\u201d</p>".encode("cp1252"))
        == "café “x”"
    )


def test_no_file_is_fetched(tmp_path):
    (tmp_path / "secret").write_text("secret")
    html = f'<!DOCTYPE html [<!ENTITY x SYSTEM "{(tmp_path / "secret").as_uri()}">]><p>a &x;</p>'
    assert "secret" not in text(html.encode()).replace(str(tmp_path), "")


def test_nothing_to_read_is_refused():
    with pytest.raises(ParseError, match="no text"):
        text(b"<p hidden>x</p>")
