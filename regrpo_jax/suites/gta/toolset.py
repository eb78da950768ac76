"""GTA's tools, loaded for workers and host: by GTA's names, described in GTA's words.

A tool is real where the toolbox has what GTA means by it: where a model or an engine is needed, where `config.tools`
names one, or a tool of the person's own has its name. The toolbox's measuring tools of the same names are real only
where nothing is replayed (`recorded="never"`): what they say of a photograph is not what GTA's tools say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from smolagents.tools import Tool

from regrpo_jax.errors import UserError
from regrpo_jax.suites.gta.gta_tool import GtaEpisode, GtaTool
from regrpo_jax.suites.gta.record_types import ToolDescription
from regrpo_jax.toolbox.aliases import GTA_NAMES
from regrpo_jax.toolbox.toolset import ALWAYS, NEVER, ToolsetSettings, load_toolset

LOADER = "regrpo_jax.suites.gta.toolset:load_gta_tools"
FINAL = "final_answer"
# What stands behind a tool that is more than a program: a field of the settings; "" is a tool of one's own alone.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "GoogleSearch": ("corpus", "search_engine"),
    "MathOCR": ("vision",),
    "TextToImage": ("images",),
    "ImageDescription": ("caption",),
    "RegionAttributeDescription": ("caption",),
    "CountGivenObject": ("detect",),
    "TextToBbox": ("detect",),
    "ImageStylization": (),
}
REAL, REPLAYED, MISSING = "real", "recorded", "missing"  # what answers a tool's calls


@dataclass(frozen=True)
class GtaToolsetSettings(ToolsetSettings):
    """`builtin` and `gta_names` do not matter: the tools are those that the data describe."""

    described: tuple[ToolDescription, ...] = ()


def load_gta_tools(settings: GtaToolsetSettings) -> dict[str, Tool]:
    """The tools by name, in the order of the data. UserError for what cannot be had."""
    own = load_toolset(_only(settings, (FINAL,)))
    programs = load_toolset(
        dataclasses.replace(
            _only(settings, tuple(name for name in _names(settings) if name in GTA_NAMES and name not in own)),
            user_tools=(), mcp_servers=(), mcp_tools=(),
        )
    )  # fmt: skip
    episode = GtaEpisode()
    tools: dict[str, Tool] = {}
    for described in settings.described:
        name = described.name
        real = _checked(own[name], described) if name in own else None
        if real is None and name in programs and (settings.recorded == NEVER or is_configured(name, settings)):
            real = programs[name]
        tools[name] = GtaTool(
            described, real, episode, replays=settings.recorded != NEVER, always=settings.recorded == ALWAYS
        )
    others = {name: tool for name, tool in own.items() if name not in tools}
    return {**tools, **others}


def answering(tools: Mapping[str, Tool], name: str) -> str:
    """What answers the calls of a loaded tool of that name: `REAL`, `REPLAYED` or `MISSING`."""
    tool = tools.get(name)
    if not isinstance(tool, GtaTool):
        return MISSING if tool is None else REAL
    if tool.always or tool.real is None:
        return REPLAYED if tool.replays else MISSING
    return REAL


def replays(tools: Mapping[str, Tool]) -> bool:
    """Whether recordings answer in the place of what is missing."""
    return any(isinstance(tool, GtaTool) and tool.replays for tool in tools.values())


def is_configured(name: str, settings: ToolsetSettings) -> bool:
    """Whether the toolbox's tool of that name of GTA's is the tool that GTA means."""
    return name not in _NEEDS or any(getattr(settings, field) for field in _NEEDS[name])


def _names(settings: GtaToolsetSettings) -> tuple[str, ...]:
    return tuple(dict.fromkeys(described.name for described in settings.described))


def _only(settings: GtaToolsetSettings, builtin: tuple[str, ...]) -> ToolsetSettings:
    return dataclasses.replace(settings, builtin=builtin, gta_names=False, world="")


def _checked(tool: Tool, described: ToolDescription) -> Tool:
    """A tool of the person's own that takes GTA's arguments. UserError for one that takes others."""
    told = {parameter.name: parameter.optional for parameter in described.inputs}
    strange = [name for name in told if name not in tool.inputs]
    needed = [name for name, one in tool.inputs.items() if not one.get("nullable") and told.get(name, True)]
    if strange or needed:
        raise UserError(
            f"your tool {tool.name} takes the arguments {', '.join(tool.inputs)}; GTA's takes {', '.join(told)}: "
            "give it these names, what GTA leaves out with a default"
        )
    return tool
