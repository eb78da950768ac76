"""All tools of the compact profile by name, for the sandbox's loader, and which of them training never meets."""

from __future__ import annotations

from typing import Any

from smolagents.tools import Tool

from regrpo_jax.suites.toolrepair_tools import compact_desk_tools as desk
from regrpo_jax.suites.toolrepair_tools import compact_tools as text
from regrpo_jax.suites.toolrepair_tools import compact_vision as vision
from regrpo_jax.suites.toolrepair_tools import compact_visual_tools as visual
from regrpo_jax.toolbox.final_answer import FinalAnswer
from regrpo_jax.toolbox.signatures import CheckedTool

LOADER = f"{__name__}:load_compact_tools"
_SHARED: tuple[type[CheckedTool], ...] = (
    text.Read, text.Search, desk.Sheet, desk.Votes, desk.File, desk.Where, desk.Total, desk.Fee, desk.Levy, desk.Toll,
    desk.Add, vision.Crop, vision.Spot, vision.Count, FinalAnswer,
)  # fmt: skip
_HELD_OUT: tuple[type[CheckedTool], ...] = (
    text.Unfold, text.Consult, desk.Note, desk.Bids, desk.Pledge, desk.Trace, desk.Amount, desk.Plus, vision.Peek,
    vision.Dab, vision.Tally,
)  # fmt: skip
_VISUAL: tuple[type[CheckedTool], ...] = (
    visual.Zoom, visual.Loupe, visual.Pair, visual.Match, visual.Chart, visual.Graph,
)  # fmt: skip


def _named(kind: type[CheckedTool], name: str) -> type[CheckedTool]:
    return type(name.capitalize(), (kind,), {"name": name})


def load_compact_tools(settings: Any = None) -> dict[str, Tool]:
    """Every compact tool, held-out ones included; `settings` is not used."""
    openers = [_named(text.Opener, name) for name in text.OPENERS]
    openers += [_named(text.HeldoutOpener, name) for name in text.HELD_OUT_OPENERS]
    tools = {kind.name: kind() for kind in (*_SHARED, *_HELD_OUT, *_VISUAL, *openers)}
    for tool in tools.values():
        tool.stateless = True  # each call reads what it needs anew
    return tools


# Those of _VISUAL are in neither: only the visual families have them.
TRAINING_TOOLS = frozenset({kind.name for kind in _SHARED} | set(text.OPENERS))
HELD_OUT_TOOLS = frozenset({kind.name for kind in _HELD_OUT} | set(text.HELD_OUT_OPENERS))
