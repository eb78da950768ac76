"""The side of `injected_faults` that runs where the tools do: of ours, a worker reads this file and what it imports."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regrpo_jax.environments.tool_faults import apply_faults
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.suites.toolrepair_tools.compact_toolset import load_compact_tools

LOADER, WRAP = f"{__name__}:load_tools", f"{__name__}:with_trouble"
Tools = dict[str, Callable[..., Any]]


def load_tools(settings: Any) -> Tools:
    """The compact suite's; by a loader of this package, so that a worker can import it."""
    return load_compact_tools(settings)


def trouble_of(session: str, call: int, rate: float, kinds: Sequence[str]) -> str:
    """What becomes of a call, counted from 1 in each session: one of `kinds`, "" for nothing."""
    draw = random.Random(f"{session}/{call}")
    return draw.choice(kinds) if draw.random() < rate else ""


def with_trouble(tools: Tools, settings: Mapping[str, Any], seed: int) -> Tools:
    """In the worker: the episode's tools as its task wants them, and trouble on top."""
    numbers = itertools.count(1)

    def call(tool: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        trouble = trouble_of(settings["session"], next(numbers), settings["rate"], settings["kinds"])
        while trouble == "hang":
            time.sleep(1)
        if trouble == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return tool(*arguments, **keywords)

    made = apply_faults(tools, settings["faults"], seed)
    return {name: tool if name == FINAL_ANSWER else functools.partial(call, tool) for name, tool in made.items()}
