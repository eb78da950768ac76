"""From settings to tools: the built-in ones, a user's own, and those of MCP servers.

`load_toolset` is what the sandbox calls in its workers and on its host; settings are plain frozen data, so that
they can be pickled into a worker and written down with a run.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.errors import UserError
from regrpo_jax.toolbox.aliases import GTA_NAMES, renamed
from regrpo_jax.toolbox.mcp_tools import McpServer, McpTool, McpToolDescription, describe_server
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.signatures import signature_of
from regrpo_jax.toolbox.user_tools import load_user_tool
from regrpo_jax.toolbox.world import world_tools

# Whole references: what a worker may read is found by them (`sandbox/modules.py`).
BUILTIN: dict[str, str] = {
    "ocr": "regrpo_jax.toolbox.vision_tools:Ocr",
    "objectlocation": "regrpo_jax.toolbox.vision_tools:ObjectLocation",
    "text_to_bbox": "regrpo_jax.toolbox.vision_tools:TextToBbox",
    "count_objects": "regrpo_jax.toolbox.vision_tools:CountObjects",
    "facedetection": "regrpo_jax.toolbox.vision_tools:FaceDetection",
    "segmentation": "regrpo_jax.toolbox.vision_tools:Segmentation",
    "image_description": "regrpo_jax.toolbox.describing_tools:ImageDescription",
    "describe_region": "regrpo_jax.toolbox.describing_tools:DescribeRegion",
    "crop": "regrpo_jax.toolbox.image_tools:Crop",
    "image_edit": "regrpo_jax.toolbox.image_tools:ImageEdit",
    "image_stylization": "regrpo_jax.toolbox.image_tools:ImageStylization",
    "draw_box": "regrpo_jax.toolbox.image_tools:DrawBox",
    "add_text": "regrpo_jax.toolbox.image_tools:AddText",
    "inspect_file_as_text": "regrpo_jax.toolbox.document_tools:InspectFileAsText",
    "list_files": "regrpo_jax.toolbox.document_tools:ListFiles",
    "table_query": "regrpo_jax.toolbox.table_tools:TableQuery",
    "search": "regrpo_jax.toolbox.search_tools:SearchTool",
    "ask_search_agent": "regrpo_jax.toolbox.search_tools:AskSearchAgent",
    "calculator": "regrpo_jax.toolbox.math_tools:Calculator",
    "solver": "regrpo_jax.toolbox.math_tools:Solver",
    "plot": "regrpo_jax.toolbox.math_tools:Plot",
    "visualizer": "regrpo_jax.toolbox.remote_tools:Visualizer",
    "math_ocr": "regrpo_jax.toolbox.remote_tools:MathOcr",
    "image_generator": "regrpo_jax.toolbox.remote_tools:ImageGenerator",
    "text_to_image": "regrpo_jax.toolbox.remote_tools:TextToImage",
    "final_answer": "regrpo_jax.toolbox.final_answer:FinalAnswer",
}
MODELS = ("detect", "segment", "caption")
"""Fields of the settings that hold a model of the protocol in docs/tools.md."""
BY_ENDPOINT = {"segment": "regrpo_jax.toolbox.endpoint_tools:Segment"}
"""Built-in tools that are of no use without the endpoint of their name, so that "all" means them only where it is."""
# What takes a tool's place where an endpoint is configured: the field of the settings, and the tool.
_INSTEAD = {
    "search": ("search_engine", "regrpo_jax.toolbox.remote_tools:RemoteSearch"),
    "ask_search_agent": ("search_engine", "regrpo_jax.toolbox.remote_tools:RemoteAskSearchAgent"),
    "objectlocation": ("detect", "regrpo_jax.toolbox.endpoint_tools:DetectedLocation"),
    "text_to_bbox": ("detect", "regrpo_jax.toolbox.endpoint_tools:DetectedBbox"),
    "count_objects": ("detect", "regrpo_jax.toolbox.endpoint_tools:DetectedCount"),
    "image_description": ("caption", "regrpo_jax.toolbox.endpoint_tools:CaptionedImage"),
    "describe_region": ("caption", "regrpo_jax.toolbox.endpoint_tools:CaptionedRegion"),
}
MISSING, ALWAYS, NEVER = "missing", "always", "never"
"""When what a suite's records answered takes a tool's place: where the tool is missing, always, or never."""
_SEARCHING = ("search", "ask_search_agent")
_ENDPOINTS = {
    "visualizer": "vision",
    "math_ocr": "vision",
    "image_generator": "images",
    "text_to_image": "images",
    "segment": "segment",
}


@dataclass(frozen=True)
class ToolsetSettings:
    """Which tools there are and what they need.

    builtin: names of built-in tools (GTA's names work too). user_tools: "package.module:name". mcp_servers: whose
    tools are added. mcp_tools: what `with_server_tools` found there; leave it empty. corpus: a folder or .jsonl
    file to search, absolute, or relative to the workspace. vision: an OpenAI-compatible vision-language model for
    visualizer and math_ocr. images: an OpenAI-compatible image model. search_engine: takes the corpus's place. detect,
    segment, caption: models of the small protocol in docs/tools.md; the tools that can use one do.
    gta_names: add GTA's names as aliases of the tools chosen. world: "package.module:Class" of a world with a state,
    see `toolbox.world`; its `act` joins the tools, and it says what `final_answer` comes to. recorded: `MISSING`,
    `ALWAYS` or `NEVER`, of suites whose records hold what their tools answered.
    """

    builtin: tuple[str, ...] = tuple(BUILTIN)
    user_tools: tuple[str, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    mcp_tools: tuple[McpToolDescription, ...] = ()
    corpus: str = ""
    vision: Endpoint | None = None
    images: Endpoint | None = None
    search_engine: Endpoint | None = None
    detect: Endpoint | None = None
    segment: Endpoint | None = None
    caption: Endpoint | None = None
    gta_names: bool = False
    world: str = ""
    recorded: str = MISSING

    @property
    def readable_paths(self) -> tuple[str, ...]:
        """Files and folders outside the workspace that the tools must be able to read."""
        return (self.corpus,) if self.corpus and Path(self.corpus).is_absolute() else ()


def settings_to_dict(settings: ToolsetSettings) -> dict[str, Any]:
    """The settings as what JSON can hold."""
    return dataclasses.asdict(settings)


def settings_from_dict(values: Mapping[str, Any]) -> ToolsetSettings:
    """The settings that `settings_to_dict` wrote, before or after JSON. UserError for an unknown or wrong field."""

    def built(kind: type, fields: Mapping[str, Any]) -> Any:
        known = [field.name for field in dataclasses.fields(kind)]
        for name in fields:
            if name not in known:
                raise UserError(f'{kind.__name__} has no field "{name}"{_suggestion(name, known)}')
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        try:
            return kind(**plain)
        except TypeError as error:
            raise UserError(f"{kind.__name__}: {error}") from error

    found = dict(values)
    for name in ("vision", "images", "search_engine", *MODELS):
        if isinstance(found.get(name), Mapping):
            found[name] = built(Endpoint, found[name])
    found["mcp_servers"] = tuple(built(McpServer, server) for server in found.get("mcp_servers", ()))
    found["mcp_tools"] = tuple(
        built(McpToolDescription, {**tool, "server": built(McpServer, tool["server"])})
        for tool in found.get("mcp_tools", ())
    )
    return built(ToolsetSettings, found)


def with_server_tools(settings: ToolsetSettings) -> ToolsetSettings:
    """The settings with the tools of its MCP servers written in; call it on the host. UserError."""
    if not settings.mcp_servers or settings.mcp_tools:
        return settings
    found = tuple(tool for server in settings.mcp_servers for tool in describe_server(server))
    return dataclasses.replace(settings, mcp_tools=found)


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; there are {', '.join(known)}"


def _builtin(name: str, settings: ToolsetSettings) -> Tool:
    own = GTA_NAMES.get(name, name)
    known = BUILTIN | BY_ENDPOINT
    if own not in known:
        raise UserError(f'there is no built-in tool "{name}"{_suggestion(name, [*known, *GTA_NAMES])}')
    setting, instead = _INSTEAD.get(own, ("", ""))
    endpoint = getattr(settings, setting) if setting else None
    module, _, class_name = (instead if endpoint else known[own]).partition(":")
    kind = getattr(importlib.import_module(module), class_name)
    if endpoint:
        tool = kind(endpoint)
    elif own in _SEARCHING:
        tool = kind(settings.corpus)
    elif own in _ENDPOINTS:
        tool = kind(getattr(settings, _ENDPOINTS[own]))
    else:
        tool = kind()
    return tool if own == name else renamed(tool, name)


def load_toolset(settings: ToolsetSettings | None = None) -> dict[str, Tool]:
    """The tools by name, in the order of the settings. UserError for what cannot be had and for two of one name."""
    settings = settings or ToolsetSettings()
    tools: dict[str, Tool] = {}

    def add(tool: Tool, origin: str) -> None:
        if tool.name in tools:
            raise UserError(f'two tools are called "{tool.name}"; the second is {origin}: rename it or leave one out')
        tools[tool.name] = tool

    for name in settings.builtin:
        add(_builtin(name, settings), "a built-in one")
    for reference in settings.user_tools:
        add(load_user_tool(reference), f"the user tool {reference}")
    for described in with_server_tools(settings).mcp_tools:
        add(McpTool(described), f'of the MCP server "{described.server.name}"')
    if settings.world:
        act, finish = world_tools(settings.world)
        tools.pop(finish.name, None)
        for tool in (act, finish):
            add(tool, f"of the world {settings.world}")
    if settings.gta_names:
        for name, own in GTA_NAMES.items():
            if own in tools and name not in tools:
                add(renamed(tools[own], name), "an alias")
    return tools


def describe_briefly(toolset: Mapping[str, Tool]) -> str:
    """The tools for a prompt in few words: names of arguments and the first clause; tools alike share a line."""
    alike: dict[str, list[str]] = {}
    for tool in toolset.values():
        purpose = re.split(r"[.;:]", re.sub(r" \([^)]*\)", "", " ".join(tool.description.split())), maxsplit=1)[0]
        told = f": {purpose}." if purpose else ""
        alike.setdefault(f"({', '.join(tool.inputs)}){told}", []).append(tool.name)
    return "\n".join(f"{', '.join(names)}{purpose}" for purpose, names in alike.items())


def describe(toolset: Mapping[str, Tool]) -> str:
    """The tools for a prompt, one line each: signature with types and choices, what it does, and its arguments."""
    return "\n".join(
        f"- {signature_of(tool)}: {_one_line(tool.description)}{_returned(tool)}{_arguments(tool)}"
        for tool in toolset.values()
    )


def _arguments(tool: Tool) -> str:
    told = {name: _one_line(declared.get("description") or "").rstrip(".") for name, declared in tool.inputs.items()}
    words = "; ".join(f"{name}: {text}" for name, text in told.items() if text)
    return f" ({words})" if words else ""


def _returned(tool: Tool) -> str:
    return " Returns the name of the new image." if tool.output_type == "image" else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
