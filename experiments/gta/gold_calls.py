"""GTA's gold calls, each made of the tool that stands behind its name here: how many run, and how many come out alike.

    python -m experiments.gta.gold_calls shared/data/gta

Pictures are stand-ins, so that what a tool says of them cannot be what was recorded; texts and numbers can.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.gta.stand_ins import with_stand_ins
from regrpo_jax.suites.gta.gta_tool import GtaTool
from regrpo_jax.suites.gta.recordings import DUMMY, AnsweredCall, answered_calls
from regrpo_jax.suites.gta.suite import GtaSuite
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.toolset import NEVER, ToolsetSettings

_CLOSE = 1e-9  # of two numbers, relative
_SIDE = 1024  # pixels


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    """The current directory, for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def made(suite: GtaSuite) -> Iterator[tuple[AnsweredCall, Any, Any]]:
    """Each gold call with what came of it, or with the failure; and the same of the tool without our mapping.

    The mapping: GTA's name for made pictures is the last one. Calls without that name are made once. A picture that a
    missing tool would have made is a stand-in, so that the calls after it can be made.
    """
    for record, task in zip(suite.data.records, suite.all_tasks(), strict=True):
        tools = suite.tools.loaded
        with tempfile.TemporaryDirectory() as place, within(Path(place)):
            for file in task.files:
                if not file.behind:
                    Path(file.name).parent.mkdir(parents=True, exist_ok=True)
                    Path(file.name).write_bytes(file.content)
            for _, calls in answered_calls(record):
                for one in calls:
                    tool = tools[one.call.name]
                    assert isinstance(tool, GtaTool)
                    found = _tried(tool, one)
                    yield one, found, _tried(tool.real, one) if DUMMY in str(one.call.arguments) else found
                    if tool.gives_picture and isinstance(found, ToolFailure):
                        tool.episode.made[_stand_in(len(tool.episode.made))] = tool.name
        for tool in tools.values():
            if isinstance(tool, GtaTool):
                tool.episode.made.clear()


def _tried(tool: Any, one: AnsweredCall) -> Any:
    try:
        return tool(**one.call.arguments)
    except ToolFailure as failure:
        return failure


def _stand_in(number: int) -> str:
    name = f"stand_in_{number}.png"
    Image.new("RGB", (_SIDE, _SIDE), "white").save(name)
    return name


def alike(recorded: str, found: Any) -> bool:
    """Whether a result says what was recorded: the same number, else the same text without spaces."""
    try:
        first, second = float(recorded), float(found)
        return abs(first - second) <= _CLOSE * max(1.0, abs(first))
    except (TypeError, ValueError):
        return "".join(recorded.split()) == "".join(str(found).split())


def main(source: Path) -> None:
    """Print a line a tool."""
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as place:
        suite = GtaSuite(with_stand_ins(source, Path(place)), ToolsetSettings(recorded=NEVER))
        for one, found, unmapped in made(suite):
            count = counts.setdefault(one.call.name, Counter())
            count["calls"] += 1
            count["unmapped"] += not isinstance(unmapped, ToolFailure)
            if isinstance(found, ToolFailure):
                reasons.setdefault(one.call.name, Counter())[" ".join(found.message.split())[:90]] += 1
                continue
            count["ran"] += 1
            count["alike"] += one.result is not None and alike(one.result.content, found)
    print("| tool | calls | ran | as recorded | ran without the mapping |\n| --- | --- | --- | --- | --- |")
    for name, count in sorted(counts.items()):
        print(f"| {name} | {count['calls']} | {count['ran']} | {count['alike']} | {count['unmapped']} |")
    for name, told in reasons.items():
        for reason, times in told.most_common(2):
            print(f"{name}: {times} x {reason}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
