"""The offline contrastive group of one failure: five ways the step could have gone, and what each is worth.

    correct           a1                    the right action at once
    failed            a0                    what went wrong
    reflect_correct   a0 -> o0 -> z -> a1   recovery with a reflection
    retry_correct     a0 -> o0 -> a1        recovery without one
    corrupted         a0 -> o0 -> a'        another wrong action after the failure

The last three stand after the failed action and its observation, as in the paper's local trajectory. Source:
the replay environment of the authors' release (regrpo/rl/environment.py), which scores them without that
context; labels and order are the same. Two more differences: success compares all arguments (theirs only the
first, so that a failed crop of the same image counts as a success), and a corrupted action repeats no marker
words.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from regrpo_jax.records.actions import FINAL_ANSWER, actions_equivalent, code_of, extract_tool_calls
from regrpo_jax.records.reflection import cites_observation, render_reflection
from regrpo_jax.records.tool_names import tools_of
from regrpo_jax.records.types import RotRecord

GROUP_LABELS = ("correct", "failed", "reflect_correct", "retry_correct", "corrupted")
ANSWER_WEIGHT, GROUNDING_WEIGHT, PLAN_WEIGHT = 0.25, 0.50, 0.25


@dataclass(frozen=True)
class Candidate:
    """One branch of a group: `reflection` ("" for none) and `action` are the trained text, in this order.

    `after_failure` says whether the branch is conditioned on the failed action and its observation.
    `verifier_value` is `V` in [0, 1], for rewards with lambda_val > 0.
    """

    label: str
    reflection: str
    action: str
    after_failure: bool
    success: bool
    verifier_value: float


def corrupted_action(corrected_action: str) -> str:
    """A wrong action in the right form: another tool, with an empty argument."""
    calls = extract_tool_calls(code_of(corrected_action))
    uses_answer = bool(calls) and calls[0].name == FINAL_ANSWER
    tool = "ask_search_agent" if uses_answer else FINAL_ANSWER
    return f'Thought: I will go on with something else.\n\nCode:\n```py\n{tool}("")\n```'


def _candidate(
    record: RotRecord, label: str, action: str, *, after_failure: bool, strict: bool, reflection: str = ""
) -> Candidate:
    success = actions_equivalent(action, record.corrected_action, strict=strict, tools=tools_of(record))
    grounded = bool(reflection) and cites_observation(record.reflection.evidence, record.quotable)
    # An action is offline a success exactly when it is the planned one, so that answer and plan score alike.
    answer, grounding, plan = float(success), float(grounded and success), float(success)
    value = ANSWER_WEIGHT * answer + GROUNDING_WEIGHT * grounding + PLAN_WEIGHT * plan
    return Candidate(label, reflection, action, after_failure, success, value)


def contrastive_candidates(record: RotRecord, *, strict: bool = True) -> tuple[Candidate, ...]:
    """The five candidates: correct, failed, reflect_correct, retry_correct, corrupted, in this order.

    V = 0.25 answer consistency + 0.50 grounding + 0.25 plan validity; grounding is credited only to a
    candidate that has a reflection, quotes the failed observation and acts rightly. `strict` is handed to
    `actions_equivalent`: False is the release's rule, the first tool's name and first argument.
    """
    corrected, reflection = record.corrected_action, render_reflection(record.reflection)
    candidate = functools.partial(_candidate, record, strict=strict)
    return (
        candidate("correct", corrected, after_failure=False),
        candidate("failed", record.failed_action, after_failure=False),
        candidate("reflect_correct", corrected, after_failure=True, reflection=reflection),
        candidate("retry_correct", corrected, after_failure=True),
        candidate("corrupted", corrupted_action(corrected), after_failure=True),
    )
