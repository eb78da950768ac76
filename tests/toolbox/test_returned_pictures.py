"""Pictures that tools return become files that an action hears of and the sandbox reports as new images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.session import SandboxSession
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.returned_pictures import names_for_pictures, pictures_for_names
from regrpo_jax.toolbox.signatures import signature_of
from regrpo_jax.toolbox.toolset import ToolsetSettings, describe, load_toolset
from tests.toolbox import picture_tools
from tests.toolbox.sandbox_checks import LIMITS

NAMES = ("paint", "in_mode", "odd", "several", "beside", "pixels", "measure", "Sketch", "FarAway")
SETTINGS = ToolsetSettings(("final_answer",), tuple(f"{picture_tools.__name__}:{name}" for name in NAMES))
ODD = {
    "empty": "odd returned a picture of 0 x 5 pixels, which shows nothing.",
    "large": "odd returned a picture of 8000 x 8000 pixels; at most 40,000,000 are kept, so make it smaller.",
    "long": "odd returned a picture of 2010 x 10 pixels, which is too elongated to be shown",
    "nan": "odd returned a picture (mode F) that cannot be written as RGB: some of its pixels are nan or inf.",
    "one bad": "odd returned a picture of 3 x 0 pixels, which shows nothing.",
    "65": "odd returned 65 pictures; at most 64 are kept of one call.",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(SandboxSettings(**{**LIMITS, "wall_seconds": 30.0}), SETTINGS) as opened:
        yield opened


@pytest.fixture
def session(pool: SandboxPool) -> Iterator[SandboxSession]:
    with pool.open({}) as opened:
        yield opened


def shown(session: SandboxSession, name: str) -> Image.Image:
    return Image.open(io.BytesIO(session.read_file(name)))


def test_a_function_a_tool_and_a_tool_on_the_host_give_names_of_new_images(session: SandboxSession) -> None:
    for code, name, color in (
        ("paint('red')", "paint_1.png", (255, 0, 0)),
        ("paint('blue')", "paint_2.png", (0, 0, 255)),
        ("sketch('tree')", "sketch_1.png", (0, 128, 0)),
        ("sketch('wrapped')", "sketch_2.png", (0, 128, 0)),
        ("far_away('white')", "far_away_1.png", (255, 255, 255)),
    ):
        result = session.run(f"result = {code}\nprint(result, type(result).__name__)")
        assert (result.status, result.text, result.images) == (Status.OK, f"{name} str", (name,)), result.text
        assert shown(session, name).getpixel((0, 0)) == color
    assert result.tool_calls[0].result == "far_away_1.png"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_is_written_as_it_is_seen(session: SandboxSession, mode: str) -> None:
    result = session.run(f"print(in_mode({mode!r}))")
    assert (result.text, result.images) == ("in_mode_1.png", ("in_mode_1.png",))
    picture = shown(session, "in_mode_1.png")
    assert (picture.mode, picture.size) == ("RGB", (4, 3))
    if mode == "RGBA":
        assert [picture.getpixel(place) for place in ((0, 0), (1, 1))] == [(255, 0, 0), (255, 255, 255)]
    if mode == "I;16":
        assert [picture.getpixel(place) for place in ((0, 0), (3, 2))] == [(0, 0, 0), (255, 255, 255)]
        assert 100 < picture.getpixel((1, 1))[0] < 130, "greys are stretched, not cut at 255"


def test_lists_become_lists_of_names_and_what_is_beside_stays(session: SandboxSession) -> None:
    result = session.run("print(several(3))\nprint(beside('x'), pixels(2).shape)")
    names = [f"several_{number}.png" for number in (1, 2, 3)]
    assert result.text == f"{names}\n{{'name': 'x', 'found': ['beside_1.png', 7]}} (2, 2, 3)"
    assert result.images == ("beside_1.png", *names)
    assert shown(session, names[2]).size == (3, 2), "the files are in the order of the list"
    assert len(session.run("several(64)").images) == 64
    assert session.run("several(0)").status is Status.EMPTY


@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_shown_is_the_tools_failure_in_one_sentence(session: SandboxSession, kind: str) -> None:
    result = session.run(f"odd({kind!r})")
    assert (result.status, result.images) == (Status.TOOL_ERROR, ())
    assert ODD[kind] in result.text and "\n" not in result.text
    assert session.files() == {}, "none of several is written"


def test_a_tool_that_takes_a_picture_takes_the_name_of_one(session: SandboxSession) -> None:
    result = session.run("print(measure(paint('red', size=7)))\nprint(measure(picture='paint_1.png'))")
    assert (result.status, result.text) == (Status.OK, "(7, 7) RGB\n(7, 7) RGB")
    result = session.run("from PIL import Image\nprint(measure(Image.new('L', (2, 3))))")
    assert result.text == "(2, 3) L"
    result = session.run("measure('none.png')")
    assert (result.status, 'File not found: "none.png". Files here: "paint_1.png"' in result.text) == (
        Status.TOOL_ERROR,
        True,
    )


def test_no_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(picture: Any, tool: str) -> str:
        raise OSError(28, "No space left on device")

    with pytest.raises(ToolError, match="^paint: the picture that it returned cannot be written: .*No space left"):
        names_for_pictures(Image.new("L", (2, 2)), "paint", full)


def test_the_policy_reads_that_a_name_comes_back() -> None:
    tools = load_toolset(SETTINGS)
    assert signature_of(tools["paint"]) == "paint(color: str, size: int = 4) -> str"
    assert signature_of(tools["measure"]) == "measure(picture: image) -> str"
    assert "- sketch(subject: str) -> str: Sketches something. Returns the name of the new image." in describe(tools)


def test_other_results_and_arguments_are_left_alone() -> None:
    for value in (None, "text", [1, [2]], (3,), {"a": b"b"}):
        assert names_for_pictures(value, "tool") is value
    assert pictures_for_names(len, ("a.png",), {"b": "b.png"}) == (("a.png",), {"b": "b.png"})
