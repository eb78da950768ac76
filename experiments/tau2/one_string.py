"""How many one-string changes of gold calls are told as a failure, of tau-bench telecom's tasks.

PYTHONPATH=$PWD python experiments/tau2/one_string.py DIR [--families full]

Of each task the first gold call that has a string is taken, one of its strings is changed as in
`experiments/bfcl/one_string.py`, and the call is made in the state before it. Beside it: how many tasks the package
finds solved when nothing is called at all.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.bfcl.one_string import changed
from regrpo_jax.records.types import Status
from regrpo_jax.suites.tau2.records import GoldCall, Record
from regrpo_jax.suites.tau2.suite import Tau2Suite
from regrpo_jax.suites.tau2.tasks import world_data
from regrpo_jax.suites.tau2.world import Tau2World
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.toolset import ToolsetSettings


def slip(record: Record, draw: random.Random) -> tuple[list[GoldCall], GoldCall, str] | None:
    """The calls before the first one with a string, that one with one of its strings changed, and which one it is."""
    for number, call in enumerate(record.gold):
        strings = [key for key, value in call.arguments.items() if isinstance(value, str)]
        if strings:
            key = draw.choice(strings)
            other = changed(call.arguments[key], draw)
            return list(record.gold[:number]), GoldCall(call.name, {**call.arguments, key: other}), key
    return None


def outcome(world: Tau2World, before: list[GoldCall], call: GoldCall) -> str:
    """The status of the changed call, made as a policy would."""
    for earlier in before:
        world.respond(earlier.name, earlier.arguments)
    try:
        world.call(call.name, tuple(call.arguments), (), call.arguments)
    except ToolFailure as failure:
        return str(failure.status)
    return str(Status.OK)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--families", nargs="*", default=["base", "small"])
    chosen = parser.parse_args()
    suite = Tau2Suite(chosen.path.resolve(), ToolsetSettings(), tuple(chosen.families))
    found: Counter[str] = Counter()
    of: Counter[str] = Counter()
    solved = 0

    def begin(record: Record, held: Mapping[str, Any]) -> Tau2World:
        return Tau2World(suite.package, world_data(record, held))

    for record in suite.records:
        solved += bool(json.loads(begin(record, suite.held).answer())["valid"])
        slipped = slip(record, random.Random(record.id))
        if slipped is not None:
            before, call, key = slipped
            place = f"{call.name}.{key}"
            of[place] += 1
            found[place] += outcome(begin(record, suite.held), before, call) == Status.TOOL_ERROR
    for place in sorted(of, key=of.__getitem__, reverse=True):
        print(f"{place}: {found[place]} of {of[place]} fail")
    print(f"all: {found.total()} of {of.total()}; {len(suite.records) - of.total()} tasks have no call with a string")
    print(f"solved without any call: {solved} of {len(suite.records)}")


if __name__ == "__main__":
    main()
