"""The compact tools, each episode's in a process of its own; a worker reads this file, so it imports nothing else."""

from __future__ import annotations

from typing import Any

from regrpo_jax.suites.toolrepair_tools.compact_toolset import load_compact_tools

LOADER = f"{__name__}:load_fresh_tools"


def load_fresh_tools(settings: Any) -> dict[str, Any]:
    """As if the tools kept something from one call to the next."""
    tools = load_compact_tools(settings)
    for tool in tools.values():
        tool.stateless = False
    return tools
