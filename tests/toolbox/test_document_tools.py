"""Documents of every format, their cells, and files that are missing, empty, damaged or bombs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from regrpo_jax.records import Status, classify_observation_text
from regrpo_jax.toolbox.document_tools import InspectFileAsText, ListFiles
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from tests.toolbox.tool_workspace import (
    SENTENCE,
    draw_scene,
    write_csv,
    write_docx,
    write_pdf,
    write_pptx,
    write_xlsx,
)

pytestmark = pytest.mark.usefixtures("workspace")
inspect = InspectFileAsText()


def write_html(name: str) -> str:
    Path(name).write_text(f"<html><body><h1>Bill</h1><p>{SENTENCE}</p><script>x()</script></body></html>")
    return name


def write_text(name: str) -> str:
    Path(name).write_text(f"Grüße\n{SENTENCE}\n", encoding="utf-8")
    return name


def write_json(name: str) -> str:
    Path(name).write_text(json.dumps({"note": SENTENCE}), encoding="utf-8")
    return name


WRITERS = {
    "pdf": write_pdf,
    "docx": write_docx,
    "pptx": write_pptx,
    "html": write_html,
    "txt": write_text,
    "md": write_text,
    "json": write_json,
    "jsonl": write_json,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_its_text_twice_the_same(kind: str) -> None:
    name = WRITERS[kind](f"file.{kind}")
    text = inspect(name)
    assert SENTENCE in text and "<w:" not in text and "<p" not in text and "x()" not in text
    assert inspect(name) == text


@pytest.mark.parametrize("name", ["table.csv", "table.xlsx"])
def test_tables_are_text_and_have_cells(name: str) -> None:
    (write_csv if name.endswith("csv") else write_xlsx)(name)
    text = inspect(name)
    assert all(word in text for word in ("city", "Lima", "18.4"))
    assert inspect(name, column=2, row=2) == "revenue (C3): 18.4"
    assert inspect(name, column=0, row=1) == "city (A2): Lima"
    assert inspect(name, column=1, row=0) == "Value at B1: year"
    with pytest.raises(ToolError, match=r"no cell in column 3, row 1: columns are 0 to 2, rows 0 to 3 \(row 0: city, "):
        inspect(name, column=3, row=1)
    with pytest.raises(ToolError, match="no cell in column 0, row 9"):
        inspect(name, row=9)


def test_an_empty_cell_is_empty_and_a_text_has_none() -> None:
    Path("holes.csv").write_text("a,b\n1,\n", encoding="utf-8")
    with pytest.raises(EmptyResult, match='Get empty content from file "holes.csv": cell B2 is empty'):
        inspect("holes.csv", column=1, row=1)
    with pytest.raises(ToolError, match="is no table"):
        inspect(write_text("note.txt"), column=1, row=1)


def test_a_long_text_is_narrowed_to_what_a_question_is_about() -> None:
    passages = [f"Chapter {number} speaks of weather and of nothing else. {'rain ' * 40}" for number in range(60)]
    passages[37] = "The harbour of Valparaiso was opened in 1912."
    Path("book.txt").write_text("\n\n".join(passages), encoding="utf-8")
    whole = inspect("book.txt")
    found = inspect("book.txt", "When was the harbour opened?")
    assert "Valparaiso" in found and len(found) < 5_000 < len(whole)
    assert found.startswith("(") and "passages, those that share most words with the question" in found
    assert inspect("book.txt", "xylophone?") == whole


def test_a_missing_file_lists_what_there_is() -> None:
    write_pdf("invoice.pdf")
    Path("data").mkdir()
    write_csv("data/table.csv")
    Path(".hidden").write_text("x")
    with pytest.raises(ToolError) as failure:
        inspect("reciept.pdf")
    assert str(failure.value) == 'File not found: "reciept.pdf". Files here: "data/table.csv", "invoice.pdf".'
    assert classify_observation_text(str(failure.value)) is Status.TOOL_ERROR
    for odd in ("", "x" * 5_000, "a\0b"):
        with pytest.raises(ToolError):
            inspect(odd)


@pytest.mark.parametrize("name", ["empty.txt", "empty.pdf", "empty.docx", "empty.csv"])
def test_a_file_without_bytes_is_empty(name: str) -> None:
    Path(name).touch()
    with pytest.raises(EmptyResult, match=f'Get empty content from file "{name}"') as failure:
        inspect(name)
    assert classify_observation_text(str(failure.value)) is Status.EMPTY


def test_a_document_without_text_is_empty() -> None:
    Path("blank.txt").write_text(" \n\n")
    for name in (write_pdf("blank.pdf", ""), write_docx("blank.docx", ""), "blank.txt"):
        with pytest.raises(EmptyResult, match=f'Get empty content from file "{name}": no text'):
            inspect(name)


@pytest.mark.parametrize("kind", ["pdf", "docx", "pptx", "xlsx"])
def test_damaged_documents_are_told_as_such(kind: str) -> None:
    Path(f"bad.{kind}").write_bytes(b"this is neither\n" * 10)
    with pytest.raises(ToolError, match=f'"bad.{kind}" is damaged'):
        inspect(f"bad.{kind}")
    whole = Path((WRITERS | {"xlsx": write_xlsx})[kind](f"whole.{kind}")).read_bytes()
    Path(f"half.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((ToolError, EmptyResult), match=f'"half.{kind}"'):
        inspect(f"half.{kind}")


@pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx"])
def test_zip_bombs_are_refused_before_they_are_unpacked(kind: str) -> None:
    with zipfile.ZipFile(f"bomb.{kind}", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"word/part{number}.xml", b"\0" * (8 * 2**20))
    assert Path(f"bomb.{kind}").stat().st_size < 2**20
    with pytest.raises(ToolError, match="20 parts of 167,772,160 bytes; at most"):
        inspect(f"bomb.{kind}")
    with zipfile.ZipFile(f"many.{kind}", "w") as archive:
        for number in range(5_001):
            archive.writestr(str(number), b"")
    with pytest.raises(ToolError, match="5,001 parts"):
        inspect(f"many.{kind}")


def test_a_document_that_expands_entities_is_bounded() -> None:
    name = write_docx("laughs.docx")
    entities = '<!DOCTYPE l [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {letter} "{f"&{before};" * 20}">' for before, letter in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with zipfile.ZipFile(name) as archive:
        parts = {member: archive.read(member) for member in archive.namelist()}
    text = parts["word/document.xml"].decode().replace("<w:document", f"{entities}]><w:document", 1)
    parts["word/document.xml"] = text.replace(SENTENCE, "&i;").encode()
    with zipfile.ZipFile(name, "w") as archive:
        for member, data in parts.items():
            archive.writestr(member, data)
    with pytest.raises((ToolError, EmptyResult)):
        inspect(name)


def test_images_binaries_and_huge_files_are_refused() -> None:
    with pytest.raises(ToolError, match='"scene.png" is an image; read its text with ocr, or ask visualizer'):
        inspect(draw_scene())
    Path("program.bin").write_bytes(bytes(range(256)))
    with pytest.raises(ToolError, match='"program.bin" is no text; files that can be read: .pdf, .docx'):
        inspect("program.bin")
    with open("huge.txt", "wb") as file:
        file.truncate(40 * 2**20)
    with pytest.raises(ToolError, match='"huge.txt" has 41,943,040 bytes; at most 33,554,432 are read'):
        inspect("huge.txt")


def test_other_encodings_are_read() -> None:
    Path("old.txt").write_bytes("Größe".encode("cp1252"))
    Path("wide.txt").write_bytes("Größe".encode("utf-16"))
    Path("marked.csv").write_bytes("Größe;b\n1;2\n".encode("utf-8-sig"))
    Path("old.html").write_bytes("<p>Größe 5 €</p>".encode("cp1252"))
    assert inspect("old.html") == "Größe 5 €"
    Path("cyrillic.txt").write_bytes("Город Москва".encode("cp1251"))
    with pytest.raises(ToolError, match="encoding that is not known"):
        inspect("cyrillic.txt")
    assert inspect("old.txt") == inspect("wide.txt") == "Größe"
    assert inspect("marked.csv", column=0, row=1) == "Größe (A2): 1"


def test_list_files_is_sorted_and_says_when_there_are_none() -> None:
    with pytest.raises(EmptyResult, match="No files found"):
        ListFiles()()
    for name in ("b.txt", "a.csv", ".corpus.jsonl"):
        Path(name).write_text("x")
    Path("folder").mkdir()
    Path("folder/c.txt").write_text("x")
    assert ListFiles()() == ["a.csv", "b.txt", "folder/c.txt"]
