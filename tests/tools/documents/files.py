"""Real files, made here: a PDF by hand (it is little more than its text), Word documents by python-docx."""

import io
from collections.abc import Sequence

import docx
from docx.document import Document as WordDocument
from docx.enum.text import WD_BREAK


def pdf(pages: Sequence[str], *, trailer: str = "") -> bytes:
    """A PDF with these pages, a line of text for each line. ISO 32000-1, annex H has such a file."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    font = "/Resources << /Font << /F1 3 0 R >> >>"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, page in enumerate(pages):
        escaped = page.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        lines = "".join(f"({line}) Tj T*\n" for line in escaped.splitlines())
        stream = f"BT /F1 9 Tf 11 TL 50 800 Td\n{lines}ET"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] {font} /Contents {5 + 2 * number} 0 R >>",
            f"<< /Length {len(stream.encode('cp1252'))} >>\nstream\n{stream}\nendstream",
        ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\n"
    return out + f"{end}startxref\n{len(out)}\n%%EOF\n".encode()


def locked_pdf() -> bytes:
    """A PDF that asks for a password which nobody knows: the hashes of it are made up."""
    secret = "<" + "5A" * 32 + ">"
    name = "<" + "00" * 16 + ">"
    return pdf(
        ["secret"],
        trailer=f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {secret} /U {secret} /P -4 >> /ID [{name} {name}]",
    )


def saved(document: WordDocument) -> bytes:
    """The bytes of a Word document."""
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def word(*paragraphs: str) -> bytes:
    """A Word document of these paragraphs; a form feed in one is a page break."""
    document = docx.Document()
    for paragraph in paragraphs:
        before, *pages = paragraph.split("\f")
        added = document.add_paragraph(before)
        for page in pages:
            added.add_run().add_break(WD_BREAK.PAGE)
            added.add_run(page)
    return saved(document)
