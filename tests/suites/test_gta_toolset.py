"""GTA's tools: the tool itself where it is here, what was recorded where not, and each answer says which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regrpo_jax.errors import UserError
from regrpo_jax.suites.gta.gta_tool import GtaTool
from regrpo_jax.suites.gta.suite import GtaSuite
from regrpo_jax.suites.gta.toolset import MISSING, REAL, REPLAYED, answering
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import NOT_RECORDED, EmptyResult, NotRecorded, ToolError, Unavailable
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.toolset import ALWAYS, NEVER, ToolsetSettings
from tests.suites import gta_samples as samples

OWN = "tests.suites.gta_own_tools"
SETTINGS = ToolsetSettings()


def suite(place: Path, settings: ToolsetSettings = SETTINGS, records: dict[str, Any] | None = None) -> GtaSuite:
    return GtaSuite(samples.folder(place / "gta", records), settings)


def opened(found: GtaSuite, record: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tools of a record's episode, in a workspace with its files, as the process of tools has them."""
    (task,) = [one for one in found.all_tasks() if one.id == f"gta/{record}"]
    place.mkdir()
    monkeypatch.chdir(place)
    for file in task.files:
        if not file.behind:
            Path(file.name).parent.mkdir(parents=True, exist_ok=True)
            Path(file.name).write_bytes(file.content)
    behind.install({file.name: file.content for file in task.files if file.behind})
    return replace(found.tools).loaded  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def nothing_behind() -> Iterator[None]:
    yield
    behind.install({})


def with_pictures(found: GtaSuite) -> GtaSuite:
    for record in found.data.records:
        for file in record.files:
            place = found.path / file.path
            place.parent.mkdir(exist_ok=True)
            Image.new("RGB", (900, 700), "white").save(place)
    return GtaSuite(found.path, found.settings)


CONFIGURED = {
    "GoogleSearch": {"corpus": "/nowhere"},
    "MathOCR": {"vision": Endpoint("http://localhost:1")},
    "TextToImage": {"images": Endpoint("http://localhost:1")},
    "ImageDescription": {"caption": Endpoint("http://localhost:1")},
    "RegionAttributeDescription": {"caption": Endpoint("http://localhost:1")},
    "CountGivenObject": {"detect": Endpoint("http://localhost:1")},
    "TextToBbox": {"detect": Endpoint("http://localhost:1")},
}


def test_what_needs_a_model_is_recorded_until_it_has_one(tmp_path: Path) -> None:
    loaded = suite(tmp_path).tools.loaded
    real = {name for name in loaded if answering(loaded, name) == REAL}
    assert real == {"OCR", "Calculator", "Solver", "Plot", "DrawBox", "AddText", "final_answer"}
    for name, fields in CONFIGURED.items():
        named = suite(tmp_path, replace(SETTINGS, **fields)).tools.loaded  # type: ignore[arg-type]
        assert answering(named, name) == REAL, name


def test_the_user_chooses_recordings_always_or_never(tmp_path: Path) -> None:
    always = suite(tmp_path, replace(SETTINGS, recorded=ALWAYS)).tools.loaded
    assert {answering(always, name) for name in always} == {REPLAYED, REAL}
    assert [name for name in always if answering(always, name) == REAL] == ["final_answer"]
    never = suite(tmp_path, replace(SETTINGS, recorded=NEVER)).tools.loaded
    assert {answering(never, name) for name in never} == {REAL}


def test_names_arguments_and_words_are_those_of_toolmeta(tmp_path: Path) -> None:
    told = json.loads((samples.DATA / "toolmeta.json").read_bytes())
    loaded = suite(tmp_path).tools.loaded
    assert [*loaded] == [*told, "final_answer"]
    for name, tool in told.items():
        assert list(loaded[name].inputs) == [one["name"] for one in tool["inputs"]]
        assert tool["description"].strip() in loaded[name].description
        optional = [one["name"] for one in tool["inputs"] if one["optional"]]
        assert [key for key, one in loaded[name].inputs.items() if one.get("nullable")] == optional


def test_a_recorded_answer_is_marked_and_keeps_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = opened(suite(tmp_path), "0", tmp_path / "workspace", monkeypatch)
    assert tools["CountGivenObject"](image="image/image_1.jpg", text="Beer") == 2
    assert capsys.readouterr().out.startswith("[recorded: CountGivenObject was not run")
    assert "MAGNA" in tools["OCR"]("image/image_1.jpg")  # the tool is here, the picture is not
    assert "[recorded: OCR was not run" in capsys.readouterr().out


def test_a_call_that_nobody_recorded_fails_with_a_sentence_that_tells_no_recorded_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = opened(suite(tmp_path), "0", tmp_path / "workspace", monkeypatch)
    with pytest.raises(NotRecorded, match=NOT_RECORDED) as failure:
        tools["CountGivenObject"](image="image/image_1.jpg", text="bottle")
    assert "bottle" in str(failure.value) and "beer" not in str(failure.value)
    with pytest.raises(ToolError, match='File not found: "image/image_9.jpg". Files here: "image/image_1.jpg"'):
        tools["CountGivenObject"](image="image/image_9.jpg", text="beer")
    with pytest.raises(ToolError, match="Usage: CountGivenObject"):
        tools["CountGivenObject"](image="image/image_1.jpg")


def test_recordings_of_one_record_answer_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = suite(tmp_path)
    first = opened(found, "1", tmp_path / "first", monkeypatch)
    assert first["CountGivenObject"](image="image/image_3.jpg", text="child") == 4
    second = opened(GtaSuite(found.path, SETTINGS), "0", tmp_path / "second", monkeypatch)
    with pytest.raises(ToolError, match="File not found"):
        second["CountGivenObject"](image="image/image_3.jpg", text="child")


def test_a_picture_from_nowhere_that_the_dialog_names_is_recorded_and_a_misspelt_one_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = samples.record(
        samples.asked("?"), samples.call("OCR", image="image/image_9.jpg"), samples.result("OCR", "12"),
        samples.call("OCR", image="/image/image_1.png"), samples.result("OCR", "13"),
        samples.answer("12"), right=samples.whitelist(["12"]),
    )  # fmt: skip
    found = with_pictures(suite(tmp_path, records={"3": told}))
    assert "image that is none of the record's: image/image_9.jpg" in found.all_tasks()[0].metadata["notes"]
    tools = opened(found, "3", tmp_path / "workspace", monkeypatch)
    assert tools["OCR"](image="image/image_9.jpg") == "12"
    assert "[recorded: OCR" in capsys.readouterr().out
    with pytest.raises(ToolError, match="outside the workspace"):  # its picture is here, under its own name
        tools["OCR"](image="/image/image_1.png")
    for name in ("image/image_8.jpg", "\0", "a" * 5000):
        with pytest.raises(ToolError, match="File not found"):
            tools["OCR"](image=name)


def test_a_recorded_picture_is_a_stand_in_and_its_dummy_name_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = opened(with_pictures(suite(tmp_path)), "150", tmp_path / "workspace", monkeypatch)
    dummy = {"image": "image/dummy_generated_image.jpg", "text": "Airport Vignette", "position": "mb"}
    with pytest.raises(ToolError, match="none has made a picture yet"):
        tools["AddText"](**dummy)
    style = "convert to a traditional Chinese painting style"
    made = tools["ImageStylization"](image="image/image_341.jpg", instruction=style)
    assert made == "recorded_ImageStylization_1.png"
    assert 'not kept; "image/image_341.jpg", unchanged, stands in for it' in capsys.readouterr().out
    assert Image.open(made).size == (900, 700)
    assert tools["AddText"](**dummy) == "AddText_1.png"
    assert "[recorded" not in capsys.readouterr().out
    assert Image.open("AddText_1.png").tobytes() != Image.open(made).tobytes()


def test_a_picture_from_nothing_is_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = opened(suite(tmp_path), "47", tmp_path / "workspace", monkeypatch)
    made = tools["TextToImage"](keywords="Shirt, panda bear,  bamboo")
    assert made == "recorded_TextToImage_1.png"
    assert Image.open(made).getcolors() == [(1024 * 1024, (128, 128, 128))]


def test_a_tool_of_ones_own_takes_the_place_of_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(SETTINGS, user_tools=(f"{OWN}:TextToImage", f"{OWN}:Counter"))
    tools = opened(with_pictures(suite(tmp_path, own)), "47", tmp_path / "workspace", monkeypatch)
    assert tools["TextToImage"](keywords="red") == "TextToImage_1.png"
    assert Image.open("TextToImage_1.png").getcolors() == [(1200, (255, 0, 0))]
    assert tools["CountGivenObject"](image="image/image_190.jpg", text="any") == 1
    assert tools["CountGivenObject"](image="image/dummy_generated_image.jpg", text="any") == 1
    with pytest.raises(ToolError, match="File not found"):
        tools["CountGivenObject"](image="elsewhere.jpg", text="any")


def test_a_tool_of_ones_own_with_other_arguments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="your tool MathOCR takes the arguments path; GTA's takes image"):
        _ = suite(tmp_path, replace(SETTINGS, user_tools=(f"{OWN}:WrongArguments",))).tools.loaded


def test_a_tool_that_only_a_record_describes_is_recorded_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = samples.record(
        samples.asked("Where?"), samples.call("Atlas", place="Pisa"), samples.result("Atlas", "Italy"),
        samples.answer("Italy"), right=samples.whitelist(["Italy"]), files=(),
    )  # fmt: skip
    place = {"name": "place", "type": "text", "description": None, "optional": False, "default": None}
    told["tools"] = [{"name": "Atlas", "description": "Tells countries.", "inputs": [place], "outputs": []}]
    recorded = opened(suite(tmp_path, records={"5": told}), "5", tmp_path / "one", monkeypatch)
    assert recorded["Atlas"](place="pisa") == "Italy"
    never = suite(tmp_path, replace(SETTINGS, recorded=NEVER), {"5": told})
    assert answering(never.tools.loaded, "Atlas") == MISSING
    with pytest.raises(Unavailable, match="Atlas is not available here"):
        opened(never, "5", tmp_path / "two", monkeypatch)["Atlas"](place="Pisa")


def test_without_recordings_the_toolbox_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_pictures(suite(tmp_path, replace(SETTINGS, recorded=NEVER)))
    tools = opened(found, "0", tmp_path / "workspace", monkeypatch)
    assert "no model has looked" in tools["ImageDescription"]("image/image_1.jpg")
    with pytest.raises(EmptyResult, match="cannot be counted"):
        tools["CountGivenObject"](image="image/image_1.jpg", text="beer")
    with pytest.raises(Unavailable, match="no vision-language model is configured"):
        tools["MathOCR"](image="image/image_1.jpg")


@pytest.mark.parametrize("name", ["OCR", "CountGivenObject"])
def test_a_loaded_tool_says_what_it_is(tmp_path: Path, name: str) -> None:
    tool = suite(tmp_path).tools.loaded[name]
    assert isinstance(tool, GtaTool) and not tool.remote and not tool.stateless
