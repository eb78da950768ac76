"""Files for the tests of tools: photographs of scikit-image's wheel, drawn scenes, documents of every format."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import skimage
from PIL import Image, ImageDraw, ImageFont

PHOTOS = Path(skimage.__file__).parent / "data"
ROWS = [("city", "year", "revenue"), ("Lima", 2023, 12.5), ("Oslo", 2024, 18.4), ("Rome", 2024, 7)]
SENTENCE = "The invoice total is 42.50 euros."


def photo(name: str) -> str:
    """Copy one of scikit-image's bundled photographs here."""
    shutil.copy(PHOTOS / name, name)
    return name


def corners(x: float, y: float, radius: float, count: int) -> list[tuple[float, float]]:
    turns = [math.radians(360 * place / count - 90) for place in range(count)]
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]


def draw_scene(name: str = "scene.png") -> str:
    """Ten shapes on white, and the word EXIT on the brown one."""
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 20, 90, 90), fill="red")
    draw.ellipse((20, 120, 90, 190), fill="red")
    draw.rectangle((120, 20, 190, 90), fill="blue")
    draw.polygon([(220, 90), (255, 20), (290, 90)], fill="green")
    draw.rectangle((120, 130, 240, 180), fill="yellow")
    draw.ellipse((260, 130, 380, 190), fill="purple")
    draw.polygon(corners(60, 240, 35, 5), fill="orange")
    draw.polygon(corners(150, 240, 35, 6), fill="pink")
    outer, inner = corners(240, 240, 38, 5), corners(240, 240, -16, 5)
    draw.polygon([point for place in range(5) for point in (outer[place], inner[(place + 3) % 5])], fill="black")
    draw.rectangle((290, 210, 390, 290), fill="saddlebrown")
    draw.text((300, 230), "EXIT", fill="white", font=ImageFont.load_default(28))
    image.save(name)
    return name


def draw_words(name: str, *lines: str) -> str:
    image = Image.new("RGB", (480, 40 + 60 * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for place, line in enumerate(lines):
        draw.text((20, 20 + 60 * place), line, fill="black", font=ImageFont.load_default(30))
    image.save(name)
    return name


def write_pdf(name: str, text: str = SENTENCE) -> str:
    from fpdf import FPDF

    document = FPDF()
    document.add_page()
    document.set_font("Helvetica", size=14)
    if text:
        document.multi_cell(0, 10, text)
    document.output(name)
    return name


def write_docx(name: str, text: str = SENTENCE) -> str:
    """A Word document, made of the three parts that one needs."""
    kinds = (
        '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        'wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
        'officeDocument" Target="word/document.xml"/></Relationships>'
    )
    body = "".join(f"<w:p><w:r><w:t>{line}</w:t></w:r></w:p>" for line in text.split("\n"))
    document = (
        '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"<w:body>{body}</w:body></w:document>"
    )
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", kinds)
        archive.writestr("_rels/.rels", relations)
        archive.writestr("word/document.xml", document)
    return name


def write_pptx(name: str, text: str = SENTENCE) -> str:
    from pptx import Presentation

    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = text
    presentation.save(name)
    return name


def write_xlsx(name: str, rows: Any = ROWS, sheet: str = "sales") -> str:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(row)
    book.save(name)
    return name


def write_csv(name: str, rows: Any = ROWS) -> str:
    Path(name).write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n", encoding="utf-8")
    return name


def write_corpus(name: str, pages: dict[str, str]) -> str:
    lines = [json.dumps({"title": title, "text": text}) for title, text in pages.items()]
    Path(name).write_text("\n".join(lines), encoding="utf-8")
    return name
