"""Documents written byte by byte, so that the same seed gives the same file: txt, csv, json, html, xlsx, docx, pdf.

Office libraries stamp the time into what they write. These are the smallest files that such programs open; tests open
every one with the library that the toolbox uses.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from html import escape

from regrpo_jax.suites.toolrepair.draft import rows_file

FORMATS = ("txt", "csv", "json", "html", "xlsx", "docx", "pdf")
TABLE_FORMATS = ("csv", "xlsx")
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_KINDS = "application/vnd.openxmlformats-officedocument"


def document(ending: str, title: str, facts: Sequence[tuple[str, str]]) -> bytes:
    """A document of that format with a title and "name: value" facts. KeyError for an unknown format."""
    lines = [title, *(f"{name}: {value}" for name, value in facts)]
    match ending:
        case "txt":
            return ("\n".join(lines) + "\n").encode()
        case "csv":
            return rows_file([("item", "value"), *facts])
        case "json":
            return json.dumps({"title": title, **dict(facts)}, indent=1).encode()
        case "html":
            rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts)
            return f"<html><body><h1>{escape(title)}</h1><table>{rows}</table></body></html>".encode()
        case "xlsx":
            return workbook(("item", "value"), facts)
        case "docx":
            return _docx(lines)
        case "pdf":
            return _pdf(lines)
    raise KeyError(ending)


def table(ending: str, header: Sequence[str], rows: Sequence[Sequence[str | int]], sheet: str = "Sheet1") -> bytes:
    """A table file: csv, or xlsx with one sheet of that name."""
    return rows_file([header, *rows]) if ending == "csv" else workbook(header, rows, sheet)


def _archive(parts: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980
    return stream.getvalue()


def _package(main: str, kind: str, parts: Mapping[str, str], more_types: str = "") -> bytes:
    types = (
        f'{_HEAD}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/><Override PartName="/{main}" ContentType="{kind}"/>'
        f"{more_types}</Types>"
    )
    relations = _relations(("officeDocument", main))
    return _archive({"[Content_Types].xml": types, "_rels/.rels": relations, **parts})


def _relations(*targets: tuple[str, str]) -> str:
    rows = "".join(
        f'<Relationship Id="rId{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships">{rows}</Relationships>'


def _docx(lines: Sequence[str]) -> bytes:
    paragraphs = "".join(f"<w:p><w:r><w:t>{escape(line)}</w:t></w:r></w:p>" for line in lines)
    body = f'{_HEAD}<w:document xmlns:w="{_WORD}"><w:body>{paragraphs}</w:body></w:document>'
    kind = f"{_KINDS}.wordprocessingml.document.main+xml"
    return _package("word/document.xml", kind, {"word/document.xml": body})


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'


def workbook(header: Sequence[str], rows: Sequence[Sequence[str | int]], sheet: str = "Sheet1") -> bytes:
    """An xlsx file with one sheet; texts are texts, ints are numbers."""
    cells = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in (header, *rows))
    kind = f"{_KINDS}.spreadsheetml"
    parts = {
        "xl/workbook.xml": f'{_HEAD}<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>'
        f'<sheet name="{escape(sheet)}" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": _relations(("worksheet", "worksheets/sheet1.xml")),
        "xl/worksheets/sheet1.xml": f'{_HEAD}<worksheet xmlns="{_SHEET}"><sheetData>{cells}</sheetData></worksheet>',
    }
    more = f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/>'
    return _package("xl/workbook.xml", f"{kind}.sheet.main+xml", parts, more)


def _pdf(lines: Sequence[str]) -> bytes:
    shown = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in lines]
    content = "BT /F1 12 Tf 72 760 Td 18 TL " + " ".join(f"({line}) Tj T*" for line in shown) + " ET"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
    )
    text, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(text))
        text += f"{number} 0 obj\n{body}\nendobj\n"
    rows = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(text)}\n%%EOF\n"
    return f"{text}xref\n0 {size}\n0000000000 65535 f \n{rows}{end}".encode("latin-1")
