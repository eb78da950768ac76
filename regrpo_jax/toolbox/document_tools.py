"""Tools that read documents and tell what files there are."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from regrpo_jax.toolbox.encodings import decoded
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.files import existing_file, workspace_files
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.tables import TABLE_SUFFIXES, read_sheets, sheet_text, uncomputed_note
from regrpo_jax.toolbox.telemetry import turn_off_telemetry
from regrpo_jax.toolbox.workbooks import check_archive

PLAIN_SUFFIXES = (".txt", ".md", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".log", ".py")
OFFICE_SUFFIXES = (".docx", ".pptx", ".xlsx")
SUFFIXES = (".pdf", *OFFICE_SUFFIXES, ".csv", ".tsv", ".html", ".htm", *PLAIN_SUFFIXES)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
WHOLE = 4_000  # characters; a longer text is narrowed to the passages that a question is about
MOST_CHARACTERS = 200_000
MOST_NAMES = 40  # of columns in a message


def _converter(suffix: str) -> Any:
    """markitdown's converter for a kind of file, chosen by its name alone, so that nothing guesses at bytes."""
    turn_off_telemetry()
    from markitdown import converters

    kinds = {
        ".pdf": converters.PdfConverter,
        ".docx": converters.DocxConverter,
        ".pptx": converters.PptxConverter,
        ".html": converters.HtmlConverter,
        ".htm": converters.HtmlConverter,
    }
    return kinds[suffix]()


def _marked_down(path: Path, name: str, suffix: str) -> str:
    turn_off_telemetry()
    from markitdown import StreamInfo

    if suffix in OFFICE_SUFFIXES:
        check_archive(path, name)
    information = StreamInfo(
        extension=suffix, filename=path.name, charset=None if suffix in OFFICE_SUFFIXES else "utf-8"
    )
    html = suffix in (".html", ".htm")
    stream = io.BytesIO(decoded(path.read_bytes(), name).encode() if html else path.read_bytes())
    try:
        return _converter(suffix).convert(stream, information).markdown
    except Exception as error:  # every library below has exceptions of its own
        if "Password" in f"{type(error).__name__} {error!r}":
            raise ToolError(f'"{name}" is locked with a password, and cannot be read.') from error
        words = str(error).strip().split("\n")[0][:300]
        raise ToolError(f'"{name}" is damaged or no {suffix} file: {type(error).__name__}: {words}') from error


def _plain_text(path: Path, name: str) -> str:
    try:
        return decoded(path.read_bytes(), name)
    except ToolError as error:
        raise ToolError(f"{error.message[:-1]}; files that can be read: {', '.join(SUFFIXES)}.") from error


def _csv_text(path: Path, name: str) -> str:
    """A table of Markdown, or the text itself where it is none."""
    try:
        (sheet,) = read_sheets(path, name)
    except ToolError:
        return decoded(path.read_bytes(), name)
    return sheet_text(sheet)


def _workbook_text(path: Path, name: str) -> str:
    sheets = read_sheets(path, name)
    return "\n\n".join("\n".join([f"## {sheet.name}", sheet_text(sheet), *uncomputed_note(sheet)]) for sheet in sheets)


def document_text(path: Path, name: str) -> str:
    """The text of a document as Markdown. ToolError for a kind that cannot be read, EmptyResult without text."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        raise ToolError(f'"{name}" is an image; read its text with ocr, or ask visualizer about it.')
    if suffix in PLAIN_SUFFIXES or suffix not in SUFFIXES:
        text = _plain_text(path, name)
    elif suffix == ".tsv":
        text = decoded(path.read_bytes(), name)
    elif suffix == ".csv":
        text = _csv_text(path, name)
    elif suffix == ".xlsx":
        text = _workbook_text(path, name)
    else:
        text = _marked_down(path, name, suffix)
    text = re.sub(r"[ \t]+\n", "\n", text.replace("\r\n", "\n").replace("\f", "\n")).strip()
    if not text:
        raise EmptyResult(f'Get empty content from file "{name}": no text could be extracted.')
    return text


def _about(text: str, question: str) -> str:
    """The passages of a long text that share most words with the question, in their order."""
    asked = {word for word in re.findall(r"\w+", question.casefold()) if len(word) > 2}
    passages = [passage for passage in re.split(r"\n\s*\n", text) if passage.strip()]
    if len(passages) < 3:
        passages = [line for line in text.split("\n") if line.strip()]
    weight = [len(asked & set(re.findall(r"\w+", passage.casefold()))) for passage in passages]
    order = sorted(range(len(passages)), key=lambda place: (-weight[place], place))
    chosen, length = [], 0
    for place in order:
        if not weight[place] or length + len(passages[place]) > WHOLE:
            break
        chosen.append(place)
        length += len(passages[place])
    if not chosen:
        return text
    note = f"({len(chosen)} of {len(passages)} passages, those that share most words with the question)"
    return "\n\n".join([note, *(passages[place] for place in sorted(chosen))])


def _column_letters(number: int) -> str:
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _cell(path: Path, name: str, column: int, row: int) -> str:
    """One cell of the first sheet, counted from 0, with the name of its column and its address."""
    sheet = read_sheets(path, name)[0]
    width = max(map(len, sheet.texts))
    if not (0 <= row < len(sheet.texts) and 0 <= column < width):
        names = [cell.strip() for cell in sheet.texts[0] if cell.strip()]
        header = ", ".join(names[:MOST_NAMES]) + ", ..." * (len(names) > MOST_NAMES)
        raise ToolError(
            f'"{name}" has no cell in column {column}, row {row}: columns are 0 to {width - 1}, rows 0 to '
            f"{len(sheet.texts) - 1} (row 0: {header})."
        )
    address = f"{_column_letters(column)}{row + 1}"
    text, value = (cells[row][column] if column < len(cells[row]) else None for cells in (sheet.texts, sheet.cells))
    if value is None or not (text := str(text).strip()):
        raise EmptyResult(f'Get empty content from file "{name}": cell {address} is empty.')
    header = sheet.texts[0][column].strip() if row and column < len(sheet.texts[0]) else ""
    note = " (a formula; the file has no value of it)" if address in sheet.uncomputed else ""
    if isinstance(value, float) and text != str(value) and text != str(int(value)):
        note = f" (the value is {value})"
    return f"{header} ({address}): {text}{note}" if header else f"Value at {address}: {text}{note}"


class InspectFileAsText(CheckedTool):
    name = "inspect_file_as_text"
    description = (
        "Reads a document as text: pdf, docx, pptx, xlsx, csv, html, json, txt and other text files. "
        "With column and row (counted from 0, row 0 is the header) one cell of a table. "
        "With a question a long text is narrowed to the passages that share its words. No images: use ocr."
    )
    inputs = {
        "file_path": {"type": "string", "description": "name of the file"},
        "question": {"type": "string", "description": "what to look for in a long text", "nullable": True},
        "column": {"type": "integer", "description": "column of a table's cell, from 0", "nullable": True},
        "row": {"type": "integer", "description": "row of a table's cell, from 0", "nullable": True},
    }
    output_type = "string"

    def warm_up(self) -> None:
        turn_off_telemetry()
        import markitdown  # noqa: F401  (a second of imports)

    def forward(
        self, file_path: str, question: str | None = None, column: int | None = None, row: int | None = None
    ) -> str:
        path = existing_file(file_path)
        if column is not None or row is not None:
            if path.suffix.lower() not in TABLE_SUFFIXES:
                raise ToolError(f'"{file_path}" is no table ({", ".join(TABLE_SUFFIXES)}); leave out column and row.')
            return _cell(path, file_path, column or 0, row or 0)
        text = document_text(path, file_path)
        if question and len(text) > WHOLE:
            text = _about(text, question)
        if len(text) > MOST_CHARACTERS:
            text = f"{text[:MOST_CHARACTERS]}\n[{len(text) - MOST_CHARACTERS} more characters]"
        return text


class ListFiles(CheckedTool):
    name = "list_files"
    description = "The names of all files that tools can open."
    inputs: dict[str, Any] = {}
    output_type = "array"

    def forward(self) -> list[str]:
        names = workspace_files()
        if not names:
            raise EmptyResult("No files found.")
        return names
