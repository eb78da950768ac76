"""The built-in tools where they are meant to run: in a worker without network, in an episode's workspace."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.mcp_tools import McpServer, close_connections
from regrpo_jax.toolbox.toolset import ToolsetSettings, with_server_tools
from tests.toolbox.tool_workspace import draw_scene, photo, write_corpus, write_docx, write_pdf, write_xlsx

PLOT = "import matplotlib.pyplot as plt\\ndef solution():\\n    f = plt.figure()\\n    plt.plot([1, 2])\\n    return f"
LOOP = "def solution():\\n  for n in range(9):\\n    try:\\n      if n == 6: return n * 7\\n    finally: pass"
# code, words of the observation, images that are written
ACTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("list_files()", "scene.png", ()),
    ('ocr("scene.png")', "EXIT", ()),
    ('OCR("scene.png", region="bottom right")', "EXIT", ()),
    ('objectlocation("blue square", "scene.png")', "[[120, 20, 191, 91]]", ()),
    ('text_to_bbox("scene.png", "blue")', "(120, 20, 191, 91), score 100", ()),
    ('count_objects("coins.png", "coins")', "24", ()),
    ('facedetection("astronaut.png")', "[[17", ()),
    ('segmentation("coins.png")', "segmentation_1.png", ("segmentation_1.png",)),
    ('image_description("scene.png")', "red circle", ()),
    ('describe_region("scene.png", [20, 20, 91, 91], "color")', "colours: red", ()),
    ('crop("scene.png", "left")', "crop_1.png", ("crop_1.png",)),
    ('image_edit("grayscale", "scene.png")', "image_edit_1.png", ("image_edit_1.png",)),
    ('image_stylization("scene.png", "sepia")', "image_stylization_1.png", ("image_stylization_1.png",)),
    ('draw_box("scene.png", (1, 1, 50, 50), "here")', "draw_box_1.png", ("draw_box_1.png",)),
    ('add_text("scene.png", "Hi", "mm")', "add_text_1.png", ("add_text_1.png",)),
    ('inspect_file_as_text("report.pdf")', "42.50 euros", ()),
    ('inspect_file_as_text("report.docx")', "42.50 euros", ()),
    ('table_query("sales.xlsx", "SELECT max(revenue) FROM sales")', "18.4", ()),
    ('ask_search_agent("length of the Nile")', "6,650 km", ()),
    ('search("Nile")', "1 - Nile", ()),
    ('calculator("2 * 3") + 1', "7", ()),
    ('solver("x**2 = 4")', "[-2, 2]", ()),
    (f'solver("{LOOP}")', "42", ()),
    (f'plot("{PLOT}")', "plot_1.png", ("plot_1.png",)),
    ("demo_add(2, second=5)", "7", ()),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("inputs"))
        names = [draw_scene(), photo("coins.png"), photo("astronaut.png"), write_pdf("report.pdf")]
        names += [write_docx("report.docx"), write_xlsx("sales.xlsx")]
        names.append(write_corpus(".corpus.jsonl", {"Nile": "The Nile has a length of 6,650 km."}))
        return {name: Path(name).absolute() for name in names}


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    server = McpServer(
        "tests", (sys.executable, str(Path(__file__).with_name("ask_server.py"))), prefix="demo_", seconds=120.0
    )
    settings = ToolsetSettings(corpus=".corpus.jsonl", gta_names=True, mcp_servers=(server,))
    with SandboxPool(SandboxSettings(workers=1, wall_seconds=60.0), with_server_tools(settings)) as opened:
        yield opened
    close_connections()


def test_every_tool_works_in_the_sandbox_and_twice_the_same(pool: SandboxPool, files: Mapping[str, Path]) -> None:
    seen = []
    for _ in range(2):
        with pool.open(files) as session:
            results = [session.run(code) for code, _, _ in ACTIONS]
            for result, (code, words, images) in zip(results, ACTIONS, strict=True):
                assert (result.status, result.images) == (Status.OK, images), (code, result.text)
                assert words in result.text, code
            seen.append(([result.text for result in results], session.files()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (
            'inspect_file_as_text("rep.pdf")',
            Status.TOOL_ERROR,
            'Files here: "astronaut.png", "coins.png", "report.docx"',
        ),
        ('ocr("astronaut.png")', Status.EMPTY, "No text found"),
        ('objectlocation("dog", "scene.png")', Status.EMPTY, "No object found"),
        ('ocr(path="scene.png")', Status.TOOL_ERROR, "Usage: ocr(image: str"),
        ('visualizer("what?", "scene.png")', Status.TOOL_ERROR, "visualizer is unavailable"),
        ('demo_add("two")', Status.TOOL_ERROR, "Usage: demo_add(first: int"),
        ('calculator("10**10**8")', Status.TOOL_ERROR, "too large"),
        ('plot("import os\\ndef solution():\\n    return os")', Status.TOOL_ERROR, "must return a matplotlib figure"),
    ],
)
def test_failures_carry_their_status_and_what_helps(
    pool: SandboxPool, files: Mapping[str, Path], code: str, status: Status, words: str
) -> None:
    with pool.open(files) as session:
        result = session.run(code)
    assert (result.status, words in result.text) == (status, True), result.text
