"""What a rule of near misses is: a name, the error it leads to, and how it changes a clean step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from regrpo_jax.engine.perturb.scene import Argument, Scene
from regrpo_jax.records.types import ErrorType


@dataclass(frozen=True)
class Change:
    """Other code in the place of a step's. before, after: words that change along with it in the step's thought.

    thought: in the place of the step's own, "" for that one.
    """

    code: str
    before: str = ""
    after: str = ""
    thought: str = ""


@dataclass(frozen=True)
class Rule:
    """A way to go wrong.

    propose: all changes of a scene, the same each time. rare: its changes often succeed in silence or look contrived,
    so that they come behind those of all other rules. parses: whether the changed code is Python. asks: it changes what
    a tool is asked, so that only that tool can tell what comes of it.
    """

    name: str
    error_type: ErrorType
    propose: Callable[[Scene], Iterable[Change]]
    rare: bool = False
    parses: bool = True
    asks: bool = False


def other_value(scene: Scene, argument: Argument, value: Any) -> Change:
    """An argument's value replaced, in the code and in the thought."""
    spoken = str(argument.value) if isinstance(argument.value, str) else ""
    return Change(scene.with_value(argument, value), spoken, str(value))
