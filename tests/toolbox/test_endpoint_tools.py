"""Models of a person's own behind tools that know colours and shapes without: over real sockets, and odd answers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.boxes import Box
from regrpo_jax.toolbox.endpoint_replies import MOST_BOXES, MOST_MASKS
from regrpo_jax.toolbox.endpoint_tools import Segment
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, Unavailable
from regrpo_jax.toolbox.host_files import CurrentDirectory, sent_picture
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.signatures import signature_of
from regrpo_jax.toolbox.toolset import MODELS, ToolsetSettings, load_toolset, settings_from_dict, settings_to_dict
from tests.toolbox.model_server import Models, as_url, serving
from tests.toolbox.sandbox_checks import LIMITS

pytestmark = pytest.mark.usefixtures("workspace")
NAMES = ("objectlocation", "text_to_bbox", "count_objects", "image_description", "describe_region", "segment")


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def address(models: Models, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("regrpo_jax.toolbox.remote_tools._FIRST_WAIT", 0.001)
    with serving(models) as served:
        yield served


def settings_for(address: str, **changes: Any) -> ToolsetSettings:
    endpoints = {name: Endpoint(f"{address}/{name}", **changes) for name in MODELS}
    return ToolsetSettings(NAMES, **endpoints)


@pytest.fixture
def tools(address: str) -> dict[str, Any]:
    return dict(load_toolset(settings_for(address)))


def squares(name: str = "squares.png") -> str:
    """80 x 60 pixels, a red square at (10, 20, 30, 40), a blue one at (50, 5, 60, 15), and a green line."""
    image = Image.new("RGB", (80, 60), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 20, 29, 39), fill="red")
    draw.rectangle((50, 5, 59, 14), fill="blue")
    draw.rectangle((0, 50, 79, 51), fill="#008000")
    image.save(name)
    return name


def test_boxes_come_from_the_detector(tools: dict[str, Any], models: Models) -> None:
    name = squares()
    assert tools["objectlocation"]("red", name) == [[10, 20, 30, 40]]
    assert tools["text_to_bbox"](name, "red") == "(10, 20, 30, 40), score 88"
    assert [tools["count_objects"](name, text) for text in ("red", "a zebra", "any")] == [1, 0, 2]
    path, body = models.seen[0]
    assert (path, sorted(body), body["text"]) == ("/detect", ["image", "text"], "red")
    with pytest.raises(EmptyResult, match='^No object found: no "a zebra" in "squares.png".$'):
        tools["objectlocation"]("a zebra", name)
    with pytest.raises(ToolError, match="text_to_bbox: the description is empty"):
        tools["text_to_bbox"](name, " ")


def test_the_surest_comes_first_and_kinds_are_told_where_they_differ(tools: dict[str, Any]) -> None:
    name = squares()
    both = "(50, 5, 60, 15), score 50, blue\n(0, 50, 80, 52), score 25, green"
    assert tools["text_to_bbox"](name, "any", top1=False) == both
    assert tools["text_to_bbox"](name, "any") == both.split("\n")[0]


def test_boxes_of_a_region_count_from_the_whole_picture(tools: dict[str, Any]) -> None:
    name = squares()
    assert tools["objectlocation"]("blue", name, region="right") == [[50, 5, 60, 15]]
    assert tools["objectlocation"]("red", name, [5, 15, 35, 45]) == [[10, 20, 30, 40]]
    with pytest.raises(EmptyResult, match='no "red" in the region right of'):
        tools["objectlocation"]("red", name, "right")


def test_a_shrunk_pictures_boxes_are_of_the_whole_one(address: str, models: Models) -> None:
    tools = load_toolset(settings_for(address, longest_side=40))
    name = squares()
    models.instead = {"boxes": [[5, 10, 15, 20], [39.8, 29.9, 40, 30]]}
    assert tools["objectlocation"]("red", name) == [[10, 20, 30, 40], [79, 59, 80, 60]]
    models.instead = {"text": "seen"}
    tools["describe_region"](name, [10, 20, 30, 40], "color")
    assert models.seen[-1][1]["box"] == [5, 10, 15, 20]
    models.instead = {"masks": [as_url(Image.new("L", (40, 30), 255))]}
    assert Image.open(tools["segment"](name, "all")).size == (80, 60)


def test_every_box_of_the_picture_has_a_pixel_there_and_back() -> None:
    sent = sent_picture(CurrentDirectory(), squares(), None, 7)
    for edges in ((0.0, 0.0, 0.1, 0.1), (6.99, 4.99, 7.0, 5.0)):
        box = sent.in_picture(edges)
        assert 0 <= box.left < box.right <= 80 and 0 <= box.top < box.bottom <= 60
    assert sent.size == (7, 5) and sent.as_sent(Box(79, 59, 80, 60)) == [6, 4, 7, 5]


def test_a_mask_and_a_cut_out_become_files(tools: dict[str, Any], models: Models) -> None:
    name = squares()
    assert tools["segment"](name, "red") == "segment_1.png"
    mask = Image.open("segment_1.png")
    assert (mask.size, mask.mode, mask.getbbox()) == ((80, 60), "L", (10, 20, 30, 40))
    assert tools["segment"](image=name, bbox=[0, 10, 40, 45], cut_out=True) == "segment_2.png"
    assert models.seen[-1][1]["box"] == [0, 10, 40, 45] and "text" not in models.seen[-1][1]
    part = Image.open("segment_2.png")
    assert (part.size, part.getpixel((3, 3))) == ((20, 20), (255, 0, 0))
    red, blue = (Image.new("L", (80, 60)) for _ in range(2))
    red.paste(255, (10, 20, 30, 40))
    blue.paste(200, (50, 5, 60, 15))
    models.instead = {"masks": [as_url(red), as_url(blue.convert("1", dither=Image.Dither.NONE))]}
    part = Image.open(tools["segment"](name, "both", cut_out=True))
    assert (part.size, part.getpixel((0, 0)), part.getpixel((45, 3))) == ((50, 35), (255, 255, 255), (0, 0, 255))
    for masks in ([], [as_url(Image.new("1", (80, 60)))]):
        models.instead = {"masks": masks}
        with pytest.raises(EmptyResult, match='nothing is outlined for "cat" in "squares.png"'):
            tools["segment"](name, "cat")
    for wrong in ({}, {"text": "cat", "bbox": "left"}, {"text": ""}):
        with pytest.raises(ToolError, match=r"give either a text or a bbox. Usage: segment\(image: str, text: str"):
            tools["segment"](name, **wrong)


def test_captions_of_pictures_and_parts(tools: dict[str, Any], models: Models) -> None:
    name = squares()
    assert tools["image_description"](name) == "all of (80, 60) at None"
    assert tools["describe_region"](name, "bottom left", "material") == "material of (80, 60) at [0, 30, 40, 60]"
    models.instead = {"text": "  "}
    with pytest.raises(EmptyResult, match='the captioning model says nothing of "squares.png"'):
        tools["image_description"](name)


BOX = [10, 20, 30, 40]
MASK = Image.new("L", (80, 60), 255)
ODD_BOXES: dict[str, tuple[Any, str]] = {
    "no JSON": (b"<html>busy</html>", "it answered '<html>busy</html>', which is no JSON"),
    "a list": ([BOX], "which is no object"),
    "nothing": ({}, "it sent no list of boxes"),
    "an object": ({"boxes": {"0": BOX}}, "it sent no list of boxes"),
    "many": ({"boxes": [BOX] * 10**5}, f"it sent 100,000 boxes; at most {MOST_BOXES:,} are read"),
    "three numbers": ({"boxes": [BOX[:3]]}, r"its box \[10, 20, 30\] is not four numbers x1, y1, x2, y2"),
    "a flat list": ({"boxes": BOX}, "its box 10 is not four numbers"),
    "texts": ({"boxes": [["1", "2", "3", "4"]]}, "is not four numbers"),
    "true": ({"boxes": [[0, 0, 5, True]]}, "is not four numbers"),
    "nan": ({"boxes": [[10, float("nan"), 30, 40]]}, r"its box \[10, nan, 30, 40\] is not four numbers"),
    "infinite": (b'{"boxes": [[0, 0, 1e999, 40]]}', "is not four numbers"),
    "huge": ({"boxes": [[0, 0, 10**400, 40]]}, "is not four numbers"),
    "turned": ({"boxes": [[30, 20, 10, 40]]}, "is empty, as x1 is not below x2"),
    "of no height": ({"boxes": [[10, 20, 30, 20]]}, "is empty, as x1 is not below x2"),
    "outside": ({"boxes": [[90, 20, 120, 40]]}, "is outside of the picture, which was sent with 80 x 60 pixels"),
    "left of it": ({"boxes": [[-3, 20, 0, 40]]}, "is outside of the picture"),
    "sticking out": ({"boxes": [[10, 20, 300, 40]]}, "is outside of the picture"),
    "shares": ({"boxes": [[0.1, 0.2, 0.5, 1]]}, "its boxes are shares of the picture, where pixels are wanted"),
    "few scores": ({"boxes": [BOX, BOX], "scores": [1]}, "it sent 1 scores with 2 boxes, where each box has one"),
    "scores none": ({"boxes": [BOX], "scores": 1}, "it sent no list of scores with 1 boxes"),
    "score in percent": ({"boxes": [BOX], "scores": [87]}, "its score 87 is no number from 0 to 1"),
    "score nan": ({"boxes": [BOX], "scores": [float("nan")]}, "its score nan is no number from 0 to 1"),
    "many labels": ({"boxes": [BOX], "labels": ["a", "b"]}, "it sent 2 labels with 1 boxes"),
    "label a number": ({"boxes": [BOX], "labels": [3]}, "its label 3 is no text"),
}
ODD_MASKS: dict[str, tuple[Any, str]] = {
    "nothing": ({"mask": as_url(MASK)}, "it sent no list of masks"),
    "many": ({"masks": ["x"] * (MOST_MASKS + 1)}, f"it sent 65 masks; at most {MOST_MASKS} are read"),
    "no data": ({"masks": ["mask.png"]}, "a mask of it does not begin with data:image/png;base64,"),
    "a number": ({"masks": [1]}, "does not begin with"),
    "no base64": ({"masks": ["data:image/png;base64,?"]}, "a mask of it is no PNG that can be read"),
    "no PNG": ({"masks": ["data:image/png;base64,AAAA"]}, "a mask of it is no PNG that can be read"),
    "cut": ({"masks": [as_url(MASK)[:90]]}, "a mask of it is no PNG that can be read"),
    "small": (
        {"masks": [as_url(MASK.resize((8, 6)))]},
        "a mask of it has 8 x 6 pixels, what was sent has 80 x 60",
    ),
    "ones": ({"masks": [as_url(Image.new("L", (80, 60), 1))]}, "the brightest pixel of a mask of it is 1, where white"),
    "see-through": ({"masks": [as_url(MASK.convert("RGBA"))]}, "a mask of it is of mode RGBA, where black and white"),
}
ODD_TEXTS: dict[str, tuple[Any, str]] = {
    "nothing": ({"caption": "x"}, "it sent no text"),
    "a list": ({"text": ["x"]}, "it sent no text"),
    "long": ({"text": "x" * 10**5}, "it sent a text of 100,000 characters; at most 8,000 are read"),
}
ODD = [
    *(("text_to_bbox", ("squares.png", "red"), *case) for case in ODD_BOXES.values()),
    *(("segment", ("squares.png", "red"), *case) for case in ODD_MASKS.values()),
    *(("image_description", ("squares.png",), *case) for case in ODD_TEXTS.values()),
]


@pytest.mark.parametrize(("tool", "arguments", "reply", "words"), ODD, ids=[*ODD_BOXES, *ODD_MASKS, *ODD_TEXTS])
def test_odd_answers_are_refused_in_one_sentence(
    tools: dict[str, Any], models: Models, tool: str, arguments: tuple[str, ...], reply: Any, words: str
) -> None:
    name = squares()
    models.instead = reply
    with pytest.raises(Unavailable, match=rf"^{tool} is unavailable: http://127.0.0.1:\d+/\w+: .*{words}") as refused:
        tools[tool](*arguments)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    assert [path.name for path in Path().iterdir()] == [name], "nothing is written"
    assert len(models.seen) == (3 if words.endswith(("no JSON", "no object")) else 1), "the same again is not asked for"


def test_edges_that_are_guessed_are_cut_to_the_picture(tools: dict[str, Any], models: Models) -> None:
    models.instead = {"boxes": [[-1.5, 10.4, 81.2, 62.0]]}
    assert tools["objectlocation"]("red", squares()) == [[0, 10, 80, 60]]


def test_a_key_is_read_on_the_host_and_an_endpoint_that_is_down_is_told(
    address: str, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_THE_TESTS", "s3cret-word")
    load_toolset(settings_for(address, key_variable="KEY_OF_THE_TESTS"))["count_objects"](squares(), "red")
    assert models.keys == ["Bearer s3cret-word"]
    down = load_toolset(settings_for("http://127.0.0.1:9", seconds=2.0))
    with pytest.raises(Unavailable, match="count_objects is unavailable: http://127.0.0.1:9/detect did not answer"):
        down["count_objects"]("squares.png", "red")


def test_without_endpoints_the_tools_are_those_that_know_colours(address: str) -> None:
    names = tuple(name for name in NAMES if name != "segment")
    local, remote = load_toolset(ToolsetSettings(names)), load_toolset(settings_for(address))
    assert [tool.remote for tool in local.values()] == [False] * 5 and all(tool.remote for tool in remote.values())
    assert all(signature_of(local[name]) == signature_of(remote[name]) for name in names), "and are called alike"
    assert local["text_to_bbox"](squares(), "red").startswith("(10, 20, 30, 40)")
    with pytest.raises(EmptyResult, match="This tool can find"):
        local["objectlocation"]("zebra", "squares.png")
    with pytest.raises(Unavailable, match="segment is unavailable: no segmentation model is configured. Set `segment`"):
        load_toolset(ToolsetSettings(("segment",)))["segment"]("squares.png", "red")
    assert "segment" not in load_toolset()


def test_settings_with_models_survive_json(address: str) -> None:
    settings = settings_for(address)
    assert settings_from_dict(json.loads(json.dumps(settings_to_dict(settings)))) == settings


def test_the_segment_tool_is_in_the_catalogue() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    assert f"`{signature_of(Segment())}`".replace("|", "\\|") in page


def test_all_of_it_from_an_action(address: str, models: Models) -> None:
    settings = settings_for(address)
    limits = SandboxSettings(**{**LIMITS, "wall_seconds": 30.0})
    with SandboxPool(limits, settings) as pool, pool.open({"squares.png": Path(squares())}) as session:
        code = "print(text_to_bbox('squares.png', 'red'), count_objects('squares.png', 'zebra'))\n"
        code += "name = segment('squares.png', 'blue', cut_out=True)\nprint(name)"
        result = session.run(code)
        assert (result.status, result.text) == (Status.OK, "(10, 20, 30, 40), score 88 0\nsegment_1.png"), result.text
        assert result.images == ("segment_1.png",)
        assert Image.open(io.BytesIO(session.read_file("segment_1.png"))).size == (10, 10)
        models.instead = {"boxes": [[0, 0, 1e4, 5]]}
        refused = session.run("objectlocation('red', 'squares.png')")
        assert (refused.status, "is outside of the picture" in refused.text) == (Status.TOOL_ERROR, True)
