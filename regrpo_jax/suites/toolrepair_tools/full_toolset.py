"""The tools of the full profile by name, for the sandbox's loader, and which of them training never meets."""

from __future__ import annotations

from typing import Any

from smolagents.tools import Tool

from regrpo_jax.suites.toolrepair_tools.full_tools import FindLines, JsonValue, Lookup, SignOff, SubmitFigure
from regrpo_jax.suites.toolrepair_tools.full_visual_tools import (
    Collate,
    CutOut,
    DrawChart,
    Magnify,
    PlotRegister,
    SideBySide,
)
from regrpo_jax.toolbox.toolset import ToolsetSettings, load_toolset

LOADER = f"{__name__}:load_full_tools"
LIBRARY = "library.jsonl"  # the corpus of a task, behind its tools
_BUILTIN = ("ocr", "text_to_bbox", "count_objects", "crop", "inspect_file_as_text", "list_files", "table_query",
            "search", "ask_search_agent", "calculator")  # fmt: skip
_BUILTIN_HELD_OUT = ("objectlocation", "describe_region", "solver")
_OURS = (SubmitFigure,)
_OURS_HELD_OUT = (FindLines, JsonValue, Lookup, SignOff)
_VISUAL = (CutOut, Magnify, DrawChart, PlotRegister, SideBySide, Collate)  # only the visual families have them


def load_full_tools(settings: Any = None) -> dict[str, Tool]:
    """Every tool of the full profile, held-out ones included; `settings` is not used."""
    builtin = (*_BUILTIN, *_BUILTIN_HELD_OUT, "final_answer")
    loaded: dict[str, Tool] = dict(load_toolset(ToolsetSettings(builtin=builtin, corpus=LIBRARY)))
    return loaded | {kind.name: kind() for kind in (*_OURS, *_OURS_HELD_OUT, *_VISUAL)}


FULL_TRAINING_TOOLS = frozenset({*_BUILTIN, *(kind.name for kind in _OURS)})
# Some tools are of both splits, so that a chain has what it needs beside the new ones.
FULL_HELD_OUT_TOOLS = frozenset({*_BUILTIN_HELD_OUT, *(kind.name for kind in _OURS_HELD_OUT), "ocr", "calculator"})
