"""Settings into tools: names, aliases, users' own, and mistakes told in one sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.records import KNOWN_TOOLS
from regrpo_jax.toolbox.aliases import GTA_NAMES
from regrpo_jax.toolbox.mcp_tools import McpServer, McpToolDescription
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.signatures import signature_of
from regrpo_jax.toolbox.toolset import (
    BUILTIN,
    ToolsetSettings,
    describe,
    load_toolset,
    settings_from_dict,
    settings_to_dict,
)
from tests.toolbox.tool_workspace import draw_scene, photo, write_corpus, write_pdf, write_xlsx

EXAMPLE = "tests.toolbox.user_tools_example"
REMOTE = {"visualizer", "math_ocr", "image_generator", "text_to_image"}


def test_the_default_toolset_has_every_known_tool() -> None:
    tools = load_toolset(ToolsetSettings(gta_names=True))
    assert set(tools) == set(KNOWN_TOOLS) == set(BUILTIN) | set(GTA_NAMES)
    assert all(tool.name == name for name, tool in tools.items())
    assert {name for name in BUILTIN if tools[name].remote} == REMOTE


# Names and order of the arguments as MAT-Agent's and GTA's users write them.
SIGNATURES = {
    "objectlocation": ["object", "image_path"],
    "image_edit": ["prompt", "image_path"],
    "image_generator": ["prompt"],
    "facedetection": ["image_path"],
    "segmentation": ["image_path", "prompt"],
    "visualizer": ["question", "image_path"],
    "inspect_file_as_text": ["file_path", "question"],
    "ask_search_agent": ["query"],
    "OCR": ["image"],
    "CountGivenObject": ["image", "text"],
    "ImageDescription": ["image"],
    "Calculator": ["expression"],
    "GoogleSearch": ["query", "k"],
    "RegionAttributeDescription": ["image", "bbox", "attribute"],
    "TextToBbox": ["image", "text", "top1"],
    "Plot": ["command"],
    "MathOCR": ["image"],
    "Solver": ["command"],
    "DrawBox": ["image", "bbox", "annotation"],
    "TextToImage": ["keywords"],
    "AddText": ["image", "text", "position", "color"],
    "ImageStylization": ["image", "instruction"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_are_those_that_users_know(name: str) -> None:
    tool = load_toolset(ToolsetSettings(builtin=(name,)))[name]
    wanted = SIGNATURES[name]
    assert list(tool.inputs)[: len(wanted)] == wanted
    assert all(tool.inputs[more].get("nullable") for more in list(tool.inputs)[len(wanted) :])


def test_describe_has_one_line_per_tool_with_types() -> None:
    lines = describe(load_toolset()).split("\n")
    assert len(lines) == len(BUILTIN)
    assert "- count_objects(image: str, text: str, region: str | list = None) -> int: How many things" in lines[3]
    assert all(line.startswith("- ") and ") -> " in line for line in lines)
    assert lines[3].count("(image: name of the image file; text: what to count; region: part of the image") == 1


def test_choices_are_a_part_of_the_signature() -> None:
    tool = load_toolset(ToolsetSettings(builtin=(), user_tools=(f"{EXAMPLE}:Whisper",)))["whisper"]
    tool.inputs = {"text": {"type": "string", "enum": ["low", "high"], "description": ""}}
    assert signature_of(tool) == "whisper(text: 'low' | 'high') -> str"
    assert describe({"whisper": tool}).startswith("- whisper(text: 'low' | 'high') -> str: ")


def test_the_catalogue_page_has_every_tool_with_its_signature() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    for name, tool in load_toolset().items():
        assert f"`{signature_of(tool)}`".replace("|", "\\|") in page, name
    for name, own in GTA_NAMES.items():
        assert f"{name} = {own}" in page


def test_a_users_function_class_and_tool_are_tools() -> None:
    references = tuple(f"{EXAMPLE}:{name}" for name in ("shout", "Whisper"))
    tools = load_toolset(ToolsetSettings(builtin=("calculator",), user_tools=references))
    assert list(tools) == ["calculator", "shout", "whisper"]
    assert tools["shout"]("hi", times=2) == "HI!!" and tools["whisper"]("HI") == "hi"
    assert signature_of(tools["shout"]) == "shout(text: str, times: int = 1) -> str"
    assert list(load_toolset(ToolsetSettings(builtin=(), user_tools=(f"{EXAMPLE}:whisper",)))) == ["whisper"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"builtin": ("orc",)}, 'there is no built-in tool "orc"; did you mean "ocr"?'),
        ({"builtin": ("quux_zzz",)}, 'there is no built-in tool "quux_zzz"; there are AddText, '),
        ({"builtin": ("ocr", "ocr")}, 'two tools are called "ocr"'),
        ({"user_tools": ("no_colon",)}, 'user tool "no_colon": write "package.module:name"'),
        ({"user_tools": ("no.such.module:x",)}, "importing no.such.module failed: ModuleNotFoundError"),
        ({"user_tools": (f"{EXAMPLE}:shut",)}, 'user_tools_example has no "shut"; it has'),
        ({"user_tools": (f"{EXAMPLE}:untyped",)}, "is no tool: .*a function needs types for all arguments"),
        ({"user_tools": (f"{EXAMPLE}:Broken",)}, "is no tool: Invalid Tool name 'broken tool'"),
        ({"user_tools": (f"{EXAMPLE}:number",)}, "is int; write a function, a Tool class or a Tool"),
        ({"user_tools": (f"{EXAMPLE}:Crop",)}, 'two tools are called "crop"; the second is the user tool tests'),
    ],
)
def test_mistakes_in_the_settings_are_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")) as failure:
        load_toolset(ToolsetSettings(**settings))
    assert "\n" not in str(failure.value)


def test_settings_survive_json_and_pickle() -> None:
    server = McpServer("demo", ("python", "server.py"), environment=("HOME",))
    settings = ToolsetSettings(
        builtin=("ocr",),
        user_tools=("a:b",),
        mcp_servers=(server,),
        mcp_tools=(McpToolDescription(server, "add", "add", "Adds.", {"a": {"type": "integer", "description": ""}}),),
        corpus="/somewhere",
        vision=Endpoint("http://localhost:8000/v1", "model", key_variable="KEY"),
        gta_names=True,
    )
    assert settings_from_dict(json.loads(json.dumps(settings_to_dict(settings)))) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.readable_paths == ("/somewhere",)
    assert dataclasses.replace(settings, corpus=".corpus.jsonl").readable_paths == ()
    with pytest.raises(UserError, match='ToolsetSettings has no field "bultin"; did you mean "builtin"'):
        settings_from_dict({"bultin": ["ocr"]})
    with pytest.raises(UserError, match='Endpoint has no field "key"'):
        settings_from_dict({"vision": {"url": "x", "key": "secret"}})


def test_a_search_engine_takes_the_place_of_the_corpus() -> None:
    tools = load_toolset(ToolsetSettings(builtin=("search", "ask_search_agent"), search_engine=Endpoint("http://x")))
    assert all(tool.remote for tool in tools.values())


def test_a_hundred_calls_start_no_connection(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError(f"a local tool opened a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_corpus(".corpus.jsonl", {"Nile": "The Nile is 6,650 km long."})
    tools = load_toolset(ToolsetSettings(corpus=".corpus.jsonl"))
    for tool in tools.values():
        tool.warm_up()
    scene, face = draw_scene(), photo("astronaut.png")
    assert "EXIT" in tools["ocr"](scene)
    assert tools["facedetection"](face) and tools["image_description"](scene)
    assert tools["inspect_file_as_text"](write_pdf("a.pdf")) and tools["table_query"](write_xlsx("b.xlsx"), "SELECT 1")
    assert "6,650" in tools["ask_search_agent"]("Nile")


def test_starting_loads_no_heavy_library() -> None:
    code = (
        "import sys; import regrpo_jax.toolbox.toolset as t; t.load_toolset()\n"
        "heavy = {'cv2', 'onnxruntime', 'rapidocr', 'skimage', 'markitdown', 'sympy', 'matplotlib', 'mcp', "
        "'pandas', 'torch', 'jax'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_no_library_reports_home_or_keeps_a_device_id(tmp_path: Path) -> None:
    code = (
        "from regrpo_jax.toolbox.toolset import load_toolset\n"
        "tools = load_toolset()\n"
        "for name in ('inspect_file_as_text', 'ocr'): tools[name].warm_up()"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", code], env=environment | {"HOME": str(tmp_path)}, check=True, timeout=600)
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name or "Microsoft" in path.name]
