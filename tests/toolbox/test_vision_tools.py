"""Tools that look: on photographs and drawn scenes, and what they say when there is nothing."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from regrpo_jax.toolbox.describing_tools import DescribeRegion, ImageDescription
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.vision_tools import CountObjects, FaceDetection, ObjectLocation, Ocr, Segmentation, TextToBbox
from tests.toolbox.tool_workspace import draw_scene, draw_words, photo, write_pdf

pytestmark = pytest.mark.usefixtures("workspace")
BY_IMAGE = {
    "ocr": lambda name: Ocr()(name),
    "objectlocation": lambda name: ObjectLocation()("red", name),
    "text_to_bbox": lambda name: TextToBbox()(name, "red"),
    "count_objects": lambda name: CountObjects()(name, "red"),
    "facedetection": lambda name: FaceDetection()(name),
    "segmentation": lambda name: Segmentation()(name),
    "image_description": lambda name: ImageDescription()(name),
    "describe_region": lambda name: DescribeRegion()(name, "left", "color"),
}


def test_ocr_reads_a_scanned_page() -> None:
    text = Ocr()(photo("page.png"))
    first, *others = text.split("\n")
    assert first.endswith(") Region-based segmentation")
    assert any("markers of the coins and the" in line for line in others)


def test_a_strip_is_read_and_a_line_of_pixels_is_empty() -> None:
    image = Image.new("RGB", (2400, 24), "white")
    ImageDraw.Draw(image).text((20, 0), "HELLO WORLD 4711", fill="black", font=ImageFont.load_default(20))
    image.save("strip.png")
    assert Ocr()("strip.png").endswith("HELLO WORLD 4711")
    for size in ((3000, 2), (2, 3000), (1, 1)):
        Image.new("RGB", size, "white").save("thin.png")
        with pytest.raises(EmptyResult, match="No text found"):
            Ocr()("thin.png")
        assert f"size: {size[0]} x {size[1]} pixels" in ImageDescription()("thin.png")


def test_ocr_reads_numbers_from_top_to_bottom_and_by_region() -> None:
    name = draw_words("receipt.png", "Total: 42.50 EUR", "Date 2024-06-01")
    assert [line.split(") ")[1] for line in Ocr()(name).split("\n")] == ["Total: 42.50 EUR", "Date 2024-06-01"]
    lower = Ocr()(name, region="bottom")
    assert lower.endswith("Date 2024-06-01") and "Total" not in lower
    assert int(lower[1:].split(",")[1]) >= 80, "the box counts from the top of the whole image"


def test_ocr_gives_the_same_twice_and_says_when_there_is_no_text() -> None:
    name = photo("page.png")
    assert Ocr()(name) == Ocr()(name)
    with pytest.raises(EmptyResult, match='No text found in "chelsea.png"'):
        Ocr()(photo("chelsea.png"))


@pytest.mark.parametrize(
    ("description", "boxes"),
    [
        ("red circle", [[20, 20, 91, 91], [20, 120, 91, 191]]),
        ("red", [[20, 20, 91, 91], [20, 120, 91, 191]]),
        ("the blue squares", [[120, 20, 191, 91]]),
        ("yellow rectangle", [[120, 130, 241, 181]]),
        ("brown", [[290, 210, 391, 291]]),
        ("ellipse", [[20, 20, 91, 91], [20, 120, 91, 191], [260, 130, 381, 191]]),
        ("largest shape", [[290, 210, 391, 291]]),
    ],
)
def test_objectlocation_finds_colors_and_shapes(description: str, boxes: list[list[int]]) -> None:
    found = ObjectLocation()(description, draw_scene())
    assert _near(sorted(found), boxes)


def _near(found: list[list[int]], boxes: list[list[int]]) -> bool:
    return len(found) == len(boxes) and all(
        abs(one - other) <= 2
        for box, wanted in zip(found, boxes, strict=True)
        for one, other in zip(box, wanted, strict=True)
    )


@pytest.mark.parametrize("shape", ["triangle", "pentagon", "hexagon", "star"])
def test_each_shape_is_found_once(shape: str) -> None:
    assert len(ObjectLocation()(shape, draw_scene())) == 1


def test_objectlocation_finds_faces_printed_words_and_templates() -> None:
    face = ObjectLocation()("face", photo("astronaut.png"))
    assert len(face) == 1
    left, top, right, bottom = face[0]
    assert left < 220 < right and top < 110 < bottom
    scene = draw_scene()
    ((left, top, right, bottom),) = ObjectLocation()("the word 'exit'", scene)
    assert 290 <= left < right <= 391 and 210 <= top < bottom <= 291
    assert ObjectLocation()("EXIT", scene) == [[left, top, right, bottom]]
    Image.open("astronaut.png").crop((200, 100, 260, 150)).save("patch.png")
    assert ObjectLocation()("patch.png", "astronaut.png") == [[200, 100, 260, 150]]


def test_objectlocation_in_a_region_counts_from_the_whole_image() -> None:
    scene = draw_scene()
    assert _near(ObjectLocation()("red circle", scene, region=[0, 100, 100, 200]), [[20, 120, 91, 191]])
    assert _near(ObjectLocation()("red", scene, region="bottom left"), [[20, 150, 91, 191]]), "half of a circle"
    with pytest.raises(EmptyResult, match=r'no "red" in the region \(0, 0, 20, 20\) of "scene.png"'):
        ObjectLocation()("red", "scene.png", region=[0, 0, 20, 20])


def test_what_cannot_be_found_is_told_with_what_can() -> None:
    scene = draw_scene()
    with pytest.raises(EmptyResult, match='No object found: no "dog".*This tool can find colours.*faces'):
        ObjectLocation()("dog", scene)
    with pytest.raises(EmptyResult, match='No object found: no "cyan" in "scene.png"\\.$'):
        TextToBbox()(scene, "cyan")
    with pytest.raises(EmptyResult, match='"beer" cannot be counted'):
        CountObjects()(scene, "beer")


def test_text_to_bbox_speaks_as_gta_does() -> None:
    scene = draw_scene()
    assert TextToBbox()(scene, "blue") == "(120, 20, 191, 91), score 100"
    assert len(TextToBbox()(scene, "red", False).split("\n")) == 2


def test_count_objects_counts_coins_shapes_and_none() -> None:
    assert CountObjects()(photo("coins.png"), "coins") == 24
    scene = draw_scene()
    assert [CountObjects()(scene, what) for what in ("red circles", "red", "cyan", "stars")] == [2, 2, 0, 1]
    assert CountObjects()(scene, "red", region=(0, 0, 400, 100)) == 1


def test_facedetection_finds_the_astronaut_and_nobody_among_coins() -> None:
    (left, top, right, bottom), *others = FaceDetection()(photo("astronaut.png"))
    assert not others and 150 < left < right < 300 and 40 < top < bottom < 200
    with pytest.raises(EmptyResult, match='No face found in "coins.png"'):
        FaceDetection()(photo("coins.png"))


def test_segmentation_keeps_what_stands_out_in_a_box_and_writes_names_that_count_up() -> None:
    scene = draw_scene()
    assert Segmentation()(scene, [10, 10, 100, 100]) == "segmentation_1.png"
    cut = Image.open("segmentation_1.png")
    assert cut.size == (400, 300)
    assert cut.getpixel((55, 55)) == (255, 0, 0) and cut.getpixel((150, 50)) == (0, 0, 63)
    assert Segmentation()(photo("coins.png")) == "segmentation_2.png"
    assert len(Image.open("segmentation_2.png").getcolors(100_000) or ()) > 10
    both = Segmentation()(scene, [[10, 10, 100, 100], [110, 10, 200, 100]])
    assert Image.open(both).getpixel((150, 50)) == (0, 0, 255)


def test_segmentation_gives_the_same_bytes_twice() -> None:
    photo("astronaut.png")
    names = [Segmentation()("astronaut.png", [150, 40, 300, 200]) for _ in range(2)]
    first, second = (hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names)
    assert first == second and names[0] != names[1]


def test_image_description_tells_what_was_measured() -> None:
    text = ImageDescription()(draw_scene())
    assert "no model has looked at it" in text
    for words in ("400 x 300 pixels", "white 6", "red circle", 'text: "EXIT"', "faces: none found"):
        assert words in text
    assert "faces: (17" in ImageDescription()(photo("astronaut.png"))


def test_describe_region_measures_an_attribute_or_says_which_it_can() -> None:
    scene = draw_scene()
    assert DescribeRegion()(scene, "(295, 215, 385, 285)", "the main color of the box").startswith("colours: brown")
    assert DescribeRegion()(scene, [120, 20, 191, 91], "size") == "size: 71 x 71 pixels"
    assert DescribeRegion()(scene, [280, 200, 400, 300], "what is written?") == 'text: "EXIT"'
    with pytest.raises(EmptyResult, match='"is it a lion" cannot be measured. Attributes are color, size, text'):
        DescribeRegion()(scene, "left", "is it a lion")


@pytest.mark.parametrize("tool", BY_IMAGE)
def test_every_tool_names_the_files_there_are_when_one_is_missing(tool: str) -> None:
    draw_scene()
    write_pdf("report.pdf")
    with pytest.raises(ToolError, match='File not found: "sceen.png". Files here: "report.pdf", "scene.png".'):
        BY_IMAGE[tool]("sceen.png")
    with pytest.raises(ToolError, match='"report.pdf" is a document, not an image .* inspect_file_as_text'):
        BY_IMAGE[tool]("report.pdf")


@pytest.mark.parametrize("tool", BY_IMAGE)
def test_every_tool_refuses_empty_damaged_and_foreign_files(tool: str) -> None:
    Path("empty.png").write_bytes(b"")
    with pytest.raises(EmptyResult, match='Get empty content from file "empty.png"'):
        BY_IMAGE[tool]("empty.png")
    photo("coins.png")
    Path("half.png").write_bytes(Path("coins.png").read_bytes()[:20_000])
    with pytest.raises(ToolError, match='"half.png" is damaged'):
        BY_IMAGE[tool]("half.png")
    Path("words.png").write_text("not a picture", encoding="utf-8")
    with pytest.raises(ToolError, match='"words.png" is no image'):
        BY_IMAGE[tool]("words.png")
    for outside in ("/etc/passwd", "../other.png"):
        with pytest.raises(ToolError, match="outside the workspace"):
            BY_IMAGE[tool](outside)
    Path("folder").mkdir()
    with pytest.raises(ToolError, match='"folder" is a folder'):
        BY_IMAGE[tool]("folder")


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims to be of a size, with hardly any data."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 100)) + part(b"IEND", b"")


@pytest.mark.parametrize("size", [(8_000, 6_000), (100_000, 100_000)])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(size: tuple[int, int]) -> None:
    Path("huge.png").write_bytes(_png_of_size(*size))
    with pytest.raises(ToolError, match=r'"huge.png" has .* pixels; at most 40,000,000 are opened'):
        Ocr()("huge.png")


def test_a_link_out_of_the_workspace_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    Path("link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ToolError, match="outside the workspace"):
        Ocr()("link.png")


def test_a_wrong_call_is_told_the_signature() -> None:
    usage = r"Usage: ocr\(image: str, region: str \| list = None\) -> str"
    with pytest.raises(ToolError, match=f'ocr has no argument "path". {usage}'):
        Ocr()(path="a.png")
    with pytest.raises(ToolError, match=f'ocr needs the argument "image". {usage}'):
        Ocr()()
    with pytest.raises(ToolError, match=f'"image" must be str, not int. {usage}'):
        Ocr()(5)
    with pytest.raises(ToolError, match="at most 2 arguments, got 3"):
        Ocr()("a", "b", "c")
    with pytest.raises(ToolError, match='was given "image" twice'):
        Ocr()("a", image="b")
