"""What can be played: tasks by split, and the tools that they are played with."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from smolagents.tools import Tool

from regrpo_jax.environments.task import Task
from regrpo_jax.toolbox.toolset import ToolsetSettings

LOADER = "regrpo_jax.toolbox.toolset:load_toolset"
SPLITS = ("train", "validation", "test", "held_out")


@dataclass(frozen=True, eq=False)
class SuiteTools:
    """Tools, as the sandbox is told of them.

    loader: "package.module:function", called with the settings in the workers and on the host. hidden: files and
    folders that no worker may read, because they make tasks or hold their answers. system: how the policy is told of
    them, see `agent.prompt.system_text`; "" for our words.
    """

    loader: str
    settings: ToolsetSettings | None = None
    hidden: tuple[str, ...] = ()
    system: str = ""

    @functools.cached_property
    def loaded(self) -> Mapping[str, Tool]:
        """The tools by name, loaded on the host. UserError for what cannot be had."""
        module, _, name = self.loader.partition(":")
        return getattr(importlib.import_module(module), name)(self.settings)


class Suite(Protocol):
    """Tasks and tools.

    brief: tools are told to the policy in a few words, and reflections by rules are short: for policies that read
    little.
    """

    @property
    def name(self) -> str:
        """What the config calls it."""

    @property
    def brief(self) -> bool:
        """See above."""

    @property
    def tools(self) -> SuiteTools:
        """What the tasks are played with."""

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """At most `count` different tasks, the same for the same arguments.

        Raises:
          UserError: the suite has no such split.
        """
