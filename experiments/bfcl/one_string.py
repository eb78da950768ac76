"""How many one-string changes of a record's first call are told as a failure, of BFCL's four multi-turn sets.

PYTHONPATH=$PWD python experiments/bfcl/one_string.py DIR

Of each record the first gold call that has a string is taken, one of its strings is changed (a letter is dropped, two
are swapped, or another letter is put in their place), and the call is made in the state before it.
"""

from __future__ import annotations

import argparse
import ast
import random
from collections import Counter
from pathlib import Path

from regrpo_jax.records.types import Status
from regrpo_jax.suites.bfcl.package import package_folder
from regrpo_jax.suites.bfcl.records import Record, read_records
from regrpo_jax.suites.bfcl.tasks import world_data
from regrpo_jax.suites.bfcl.world import BfclWorld
from regrpo_jax.toolbox.failures import ToolFailure


def changed(text: str, draw: random.Random) -> str:
    """Another text, one slip away; "x" for an empty one."""
    places = [at for at in range(len(text)) if text[at].isalnum()]
    if not places:
        return text + "x"
    at = draw.choice(places)
    swapped = text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :]
    others = [text[:at] + text[at + 1 :], swapped, text[:at] + draw.choice("abcdefghij") + text[at + 1 :]]
    return next((other for other in draw.sample(others, 3) if other != text), text + "x")


def slip(record: Record, draw: random.Random) -> tuple[list[str], ast.Call] | None:
    """The calls before the first one with a string, and that one with one of its strings changed."""
    before: list[str] = []
    for call in (call for calls in record.gold for call in calls):
        tree = ast.parse(call, mode="eval").body
        strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        if strings and isinstance(tree, ast.Call):
            node = draw.choice(strings)
            node.value = changed(str(node.value), draw)
            return before, tree
        before.append(call)
    return None


def outcome(package: Path, record: Record, before: list[str], call: ast.Call) -> str:
    """The status of the changed call, made as a policy would."""
    world = BfclWorld(package, world_data(record) | {"refused": {}})
    for earlier in before:
        world.run(earlier)
    names = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    try:
        world.call(ast.unparse(call.func), [ast.literal_eval(value) for value in call.args], names)
    except ToolFailure as failure:
        return str(failure.status)
    return str(Status.OK)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    package = package_folder(parser.parse_args().path.resolve())
    found: dict[str, Counter[str]] = {}
    for record in read_records(package):
        slipped = slip(record, random.Random(record.id))
        status = "no string" if slipped is None else outcome(package, record, *slipped)
        found.setdefault(record.set, Counter())[status] += 1
    for name, counts in {**found, "all": sum(found.values(), Counter())}.items():
        tried = counts.total() - counts["no string"]
        print(f"{name}: {counts[str(Status.TOOL_ERROR)]} of {tried} changed calls fail; {dict(counts)}")


if __name__ == "__main__":
    main()
