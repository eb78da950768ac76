"""What the authors' checker says of the calls of an episode: state and responses, request by request.

The checker keeps the instances that it has made in the variables of its module, by the name of the model and the id; so
each question gets a name of its own, and its instances are taken out afterwards.

Source: `multi_turn_checker` and `eval_runner` of the package bfcl-eval 2026.3.23, which is imported and not repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.suites.bfcl.package import CALLING, CHECKER, imported

CUT_SHORT, FAILED = "multi_turn:force_terminated", "checker_failed"
_numbers = itertools.count()


@dataclass(frozen=True)
class Verdict:
    """kind: the checker's own name of what is wrong, "" for nothing; words: how it tells it."""

    valid: bool
    kind: str = ""
    words: str = ""


def judged(package: Path, told: Mapping[str, Any], steps: Sequence[Sequence[Sequence[str]]]) -> Verdict:
    """The verdict on calls by request and step.

    Args:
      told: `world.world_data` of the record.
      steps: calls that can be run, see `calls.runnable`; as many requests as were begun.
    """
    gold: list[list[str]] = [list(calls) for calls in told["gold"]]
    if len(steps) != len(gold):
        return Verdict(False, CUT_SHORT, f"{len(steps)} of {len(gold)} requests were come to")
    checker, calling = imported(package, CHECKER), imported(package, CALLING)
    name = f"regrpo_jax_{next(_numbers)}"
    entry = {"id": told["id"], "initial_config": told["config"], "involved_classes": list(told["classes"])}
    made = [[list(calls) for calls in turn if calls] for turn in steps]
    try:
        found = checker.multi_turn_checker(made, gold, entry, told["id"].rpartition("_")[0], name)
    except Exception as error:  # a state that it cannot compare
        return Verdict(False, FAILED, f"{type(error).__name__}: {error}"[:300])
    finally:
        for known in [known for known in vars(calling) if known.startswith(f"{name}_")]:
            delattr(calling, known)
    if found["valid"]:
        return Verdict(True)
    return Verdict(False, str(found.get("error_type", "")), str(found.get("error_message", ""))[:300])
