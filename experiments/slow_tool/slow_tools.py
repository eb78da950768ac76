"""The compact tools, of whose calls a share answers two seconds late; which ones is a hash of the call."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.suites.toolrepair_tools.compact_toolset import load_compact_tools

SECONDS = 2.0
PERCENT = 5


def load_slow_tools(settings: Any = None) -> dict[str, Tool]:
    """For the sandbox: every tool that is not `final_answer` may be late."""
    tools = load_compact_tools(settings)
    for name, tool in tools.items():
        if name != "final_answer":
            tool.forward = _late(tool.forward)
    return tools


def _late(forward: Any) -> Any:
    def wait(*arguments: Any, **named: Any) -> Any:
        # What an episode's workspace holds tells its calls from the same ones of other episodes.
        told = repr((arguments, sorted(named.items()), sorted(os.listdir("."))))
        if hashlib.sha256(told.encode()).digest()[0] * 100 < PERCENT * 256:
            time.sleep(SECONDS)
        return forward(*arguments, **named)

    return wait
