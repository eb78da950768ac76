"""Files that code reads, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.named_files import could_be_file, named_files
from regrpo_jax.engine.tool_shapes import shapes_of
from regrpo_jax.toolbox.toolset import ToolsetSettings, load_toolset

NAMES = ("visualizer", "inspect_file_as_text", "ask_search_agent", "calculator", "segmentation")
SHAPES = shapes_of(load_toolset(ToolsetSettings(builtin=NAMES)))


@pytest.mark.parametrize(
    ("code", "read"),
    [
        ('visualizer("q?", "a/b.jpg")', ["a/b.jpg"]),
        ('visualizer(image_path="a.jpg", question="What is in notes.txt?")', ["a.jpg"]),
        ('p = "a.jpg"\nvisualizer("q", p)', ["a.jpg"]),
        ('for p in ["a.jpg", "b.png"]:\n    visualizer("q", p)', ["a.jpg", "b.png"]),
        ('paths = ["a.jpg"]\nfor n, p in enumerate(paths):\n    visualizer("q", image_path=p)', ["a.jpg"]),
        ('from PIL import Image\nImage.open("my photo.jpg")', ["my photo.jpg"]),
        ('import pandas as pd\npd.read_excel("t.xlsx")', ["t.xlsx"]),
        ('with open("t.txt") as f:\n    print(f.read())', ["t.txt"]),
        ('open("out.txt", "w").write("x")', []),
        ('open("log.txt", mode="a").write("x")', []),
        ('open("out.txt", "w").write("x")\ninspect_file_as_text("out.txt")', []),
        ('plt.savefig("c.png")\nvisualizer("q", "c.png")', []),
        ('p = "c.png"\nimage.save(p)\nvisualizer("q", p)', []),
        ('ask_search_agent("What is Node.js")', []),
        ('ask_search_agent(query="https://a.org/b.html")', []),
        ('inspect_file_as_text("https://a.org/b.pdf")', []),
        ('calculator("3.14")\nx = "v1.2.beta"', []),
        ('from pathlib import Path\nPath("a.md").read_text()', ["a.md"]),
        ('from pathlib import Path\nPath("a.md").write_text("x")', []),
        ("visualizer(", []),
        ('visualizer("q", "/etc/passwd")', ["/etc/passwd"]),
        ('visualizer("q", "no file")', []),
    ],
)
def test_what_code_reads(code: str, read: list[str]) -> None:
    assert list(named_files([code], SHAPES).read) == read


@pytest.mark.parametrize("text", ["3.14", "1,234.5", "a.b c", "What is it?", "x. y", "end.", "http://a/b.png", ".png",
                                  "two\nlines.txt", "a.toolong", "v1.2", ""])  # fmt: skip
def test_what_is_no_files_name(text: str) -> None:
    assert not could_be_file(text)


@given(st.lists(st.text(max_size=30), max_size=3))
def test_no_code_breaks_it(code: list[str]) -> None:
    named_files(code, SHAPES)
