"""Tools that make images: the pixels they write, the names they return, the instructions they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from regrpo_jax.toolbox.editing import edit_image
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.image_tools import AddText, Crop, DrawBox, ImageEdit, ImageStylization
from tests.toolbox.tool_workspace import draw_scene, photo

pytestmark = pytest.mark.usefixtures("workspace")


def test_crop_cuts_boxes_and_region_words_and_counts_its_files() -> None:
    scene = draw_scene()
    assert Crop()(scene, [20, 20, 91, 91]) == "crop_1.png"
    assert Image.open("crop_1.png").size == (71, 71)
    assert Crop()(scene, "bottom right") == "crop_2.png"
    assert Image.open("crop_2.png").size == (200, 150)
    assert Crop()(scene, "(350, 250, 900, 900)") == "crop_3.png", "what is left inside the image is cut"
    assert Image.open("crop_3.png").size == (50, 50)
    with pytest.raises(ToolError, match="outside the image, which has 400 x 300 pixels"):
        Crop()(scene, [400, 300, 500, 400])
    with pytest.raises(ToolError, match="Unknown region"):
        Crop()(scene, "upstairs")


@pytest.mark.parametrize(
    ("instruction", "size", "point", "color"),
    [
        ("rotate 90 degrees clockwise", (300, 400), (299 - 55, 55), (255, 0, 0)),
        ("rotate by 90 degrees counterclockwise", (300, 400), (55, 399 - 55), (255, 0, 0)),
        ("rotate 180", (400, 300), (399 - 150, 299 - 50), (0, 0, 255)),
        ("flip horizontally", (400, 300), (399 - 150, 50), (0, 0, 255)),
        ("Flip it vertically.", (400, 300), (150, 299 - 50), (0, 0, 255)),
        ("invert the colors", (400, 300), (150, 50), (255, 255, 0)),
        ("convert to grayscale", (400, 300), (150, 50), (29, 29, 29)),
        ("make it black and white", (400, 300), (150, 50), (29, 29, 29)),
        ("resize to 200x100", (200, 100), (75, 17), (0, 0, 255)),
        ("resize to 50%", (200, 150), (75, 25), (0, 0, 255)),
        ("darken by 100 percent", (400, 300), (150, 50), (0, 0, 0)),
        ("crop the top left then invert", (200, 150), (150, 50), (255, 255, 0)),
    ],
)
def test_image_edit_does_what_the_words_say(
    instruction: str, size: tuple[int, int], point: tuple[int, int], color: tuple[int, int, int]
) -> None:
    edited = Image.open(ImageEdit()(instruction, draw_scene()))
    assert edited.size == size
    assert edited.getpixel(point) == color


@pytest.mark.parametrize("instruction", ["blur", "blur by 10 pixels", "sharpen", "sepia", "brighten 20%", "contrast"])
def test_image_edit_changes_a_photograph(instruction: str) -> None:
    name = photo("chelsea.png")
    edited = Image.open(ImageEdit()(instruction, name))
    assert edited.size == Image.open(name).size
    assert ImageChops.difference(edited, Image.open(name).convert("RGB")).getbbox() is not None


@pytest.mark.parametrize("instruction", ["add fireworks", "", "Convert to Van Gogh style", "rotate then dance"])
def test_an_unknown_instruction_lists_what_can_be_done(instruction: str) -> None:
    for tool in (lambda: ImageEdit()(instruction, draw_scene()), lambda: ImageStylization()(draw_scene(), instruction)):
        with pytest.raises(ToolError, match="This tool can rotate 90 .* resize to WIDTHxHEIGHT"):
            tool()


def test_sizes_that_cannot_be_made_are_refused() -> None:
    for instruction in ("resize to 100000x100000", "resize to 0x10", "resize to 99999%"):
        with pytest.raises(ToolError, match="pixels cannot be made; 1 to 40,000,000"):
            ImageEdit()(instruction, draw_scene())


@given(st.text(max_size=80))
def test_no_instruction_raises_anything_but_a_tool_error(instruction: str) -> None:
    try:
        edited = edit_image(Image.new("RGB", (8, 6), "red"), instruction)
    except ToolError:
        return
    assert edited.mode == "RGB"


def test_draw_box_draws_on_a_copy() -> None:
    scene = draw_scene()
    before = Path(scene).read_bytes()
    name = DrawBox()(scene, "130, 100, 250, 125", "Opens 9.30AM")
    drawn = Image.open(name)
    assert name == "draw_box_1.png" and drawn.getpixel((130, 110)) == (255, 0, 0)
    assert drawn.getpixel((190, 112)) == (255, 255, 255)
    difference = ImageChops.difference(drawn, Image.open(scene)).getbbox()
    assert difference is not None and difference[1] < 100, "the annotation is above the box"
    assert Path(scene).read_bytes() == before


@pytest.mark.parametrize(
    "position", ["lt", "mt", "rt", "lm", "mm", "rm", "lb", "mb", "rb", "bl", "(350, 200)", [10, 20]]
)
def test_add_text_writes_where_it_is_told(position: object) -> None:
    Image.new("RGB", (400, 300), "white").save("paper.png")
    box = ImageChops.invert(Image.open(AddText()("paper.png", "Hi", position, "black"))).getbbox()
    assert box is not None
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if isinstance(position, str) and len(position) == 2:
        across, down = position if position[0] in "lmr" and position[1] in "tmb" else position[::-1]
        assert {"l": 0, "m": 133, "r": 266}[across] <= middle[0] <= {"l": 133, "m": 266, "r": 400}[across]
        assert {"t": 0, "m": 100, "b": 200}[down] <= middle[1] <= {"t": 100, "m": 200, "b": 300}[down]
    else:
        x, y = (350, 200) if isinstance(position, str) else (10, 20)
        assert abs(box[0] - x) <= 2 and abs(box[1] - y) <= 2


def test_add_text_says_what_is_wrong() -> None:
    scene = draw_scene()
    with pytest.raises(ToolError, match='Unknown color "blurple"'):
        AddText()(scene, "Hi", "mm", "blurple")
    with pytest.raises(ToolError, match='"somewhere" is no position'):
        AddText()(scene, "Hi", "somewhere")
    with pytest.raises(ToolError, match=r"\(500, 10\) is outside the image, which has 400 x 300"):
        AddText()(scene, "Hi", "(500, 10)")
    with pytest.raises(ToolError, match="The text is empty"):
        AddText()(scene, " ", "mm")
