"""The package's result files: JSON with the runs of tasks, {"simulations": [{"task_id", "messages", ..}], ..}.

Ours can be read by the package's own `Results.load`. Times and costs are not known to it, and left empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.suites.benchmark import PlayedTask
from regrpo_jax.suites.bfcl.answer import told_answer
from regrpo_jax.suites.tau2.world import Tau2World

_STOP = "###STOP###"  # what the package's agent is made to say when it calls `done`
ENDED, BROKEN_OFF = "agent_stop", "max_steps"


@dataclass
class Results:
    """simulations: as files have them, in order, with the words that name their place."""

    simulations: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)


def write_results(
    played: Sequence[PlayedTask], begin: Callable[[str], Tau2World], domain: str, policy: str, path: Path
) -> None:
    """Write what was played, in the given order. begin: the world of a task's id, to make its calls again in."""
    nobody = {"implementation": "dummy_user"}
    info = {
        "git_commit": "", "num_trials": 1, "max_steps": max((len(one.turns) for one in played), default=0),
        "max_errors": 0, "user_info": nobody, "agent_info": {"implementation": "regrpo_jax"},
        "environment_info": {"domain_name": domain, "policy": policy},
    }  # fmt: skip
    runs = [_simulation(one, begin) for one in played]
    text = json.dumps({"timestamp": "", "info": info, "tasks": [], "simulations": runs}, ensure_ascii=False, indent=1)
    replace_text(path, text + "\n")


def _simulation(played: PlayedTask, begin: Callable[[str], Tau2World]) -> dict[str, Any]:
    """A run. Of an episode that broke off the calls are not known whole; it has failed whatever they were."""
    calls = told_answer(played.answer).get("calls")
    messages: list[dict[str, Any]] = []
    if calls is not None:
        world = begin(played.id)
        for call in calls:
            world.respond(call["name"], call["arguments"])
        messages = [message.model_dump(mode="json") | {"timestamp": None} for message in world.history]
        messages.append({"role": "assistant", "content": _STOP, "tool_calls": None, "timestamp": None})
    return {
        "id": played.id, "task_id": played.id, "timestamp": "", "start_time": "", "end_time": "", "duration": 0.0,
        "termination_reason": BROKEN_OFF if calls is None else ENDED, "messages": messages, "trial": 0,
    }  # fmt: skip


def read_results(paths: Sequence[Path]) -> Results:
    """What the files say together. UserError for a file that is none of the package's."""
    results = Results()
    for path in paths:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from error
        except ValueError as error:
            raise UserError(f"{path}: not JSON: {error}") from error
        runs = told.get("simulations") if isinstance(told, dict) else None
        if not isinstance(runs, list):
            raise UserError(f'{path}: no result file of tau2: it has no list of "simulations"')
        for number, run in enumerate(runs):
            place = f"{path}, simulation {number}"
            if not isinstance(run, dict) or not isinstance(run.get("task_id"), str):
                raise UserError(f'{place}: an object with a text "task_id" is expected')
            results.simulations.append((place, run))
    return results
