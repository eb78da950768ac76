"""Near misses of a clean step, by rules: actions that a sensible agent might take in its place and that should fail.

A rule changes one thing in the source of the step. Nothing here is sure to fail; the sandbox decides. The rules of an
error type stand in one file of this folder.

Source: the controlled perturbations of ReGRPO's data engine (arXiv 2606.31392, section on Reflection-of-Thought).
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator, Sequence

from regrpo_jax.engine.cases import NearMiss, Situation
from regrpo_jax.engine.perturb import (
    arguments,
    code,
    commitment,
    context,
    grounding,
    tools,
)
from regrpo_jax.engine.perturb.rule import Change, Rule
from regrpo_jax.engine.perturb.scene import Scene
from regrpo_jax.records.actions import (
    FINAL_ANSWER,
    action_signature,
    extract_tool_calls,
    parse_python,
    primary_tool,
)
from regrpo_jax.records.types import ErrorType

RULES: tuple[Rule, ...] = (
    *grounding.RULES, *tools.RULES, *arguments.RULES, *context.RULES,
    *commitment.RULES, *code.RULES,
)  # fmt: skip
_MOST_OF_A_RULE = 6
# A thought with one of these would tell the policy that its action is going to fail.
_GIVEAWAY = re.compile(
    r"\b(?:wrong|mistake\w*|incorrect\w*|invalid\w*|errors?|fail\w*|typo\w*|near miss)\b", re.IGNORECASE
)


def near_misses(situation: Situation, error_type: ErrorType, rng: random.Random) -> list[NearMiss]:
    """The near misses of an error type, each different from the clean step, from the others and from the source's own.

    The first of each rule come first, in the order of the rules, then the second of each, and so on; those of rare
    rules come last. `rng` decides which of a rule's come first, and which are kept where there are many. [] when
    there is none, and for code that does not parse (where nothing but NonCommit can be made of it).
    """
    scenes, taken = _Scenes(situation), {miss.code for miss in situation.own}
    rules = [rule for rule in RULES if rule.error_type == error_type]
    common = _in_turn([_candidates(scenes.of(rule), rule, rng) for rule in rules if not rule.rare])
    rare = _in_turn([_candidates(scenes.of(rule), rule, rng) for rule in rules if rule.rare])
    found: dict[str, NearMiss] = {}
    for miss in (*common, *rare):
        key = _normalised(miss.code)
        if key not in found and miss.code not in taken:
            found[key] = miss
    return list(found.values())


class _Scenes:
    """A situation as rules see it: those that change what is asked see only tools that can answer."""

    def __init__(self, situation: Situation) -> None:
        self._whole = Scene(situation)
        self._present = Scene(situation, present=True) if situation.absent else self._whole

    def of(self, rule: Rule) -> Scene:
        """What the rule sees."""
        return self._present if rule.asks else self._whole


def feasible_types(situation: Situation) -> frozenset[ErrorType]:
    """The error types of which `near_misses` finds any."""
    return frozenset(kind for kind in ErrorType if near_misses(situation, kind, random.Random(0)))


def _in_turn(lists: Sequence[Sequence[NearMiss]]) -> Iterator[NearMiss]:
    for place in range(max(map(len, lists), default=0)):
        yield from (one[place] for one in lists if place < len(one))


def _candidates(scene: Scene, rule: Rule, rng: random.Random) -> list[NearMiss]:
    """At most `_MOST_OF_A_RULE` that are really other actions; which ones is decided by `rng` alone."""
    changes = _proposed(scene, rule)
    rng.shuffle(changes)
    found: list[NearMiss] = []
    for change in changes:
        if len(found) == _MOST_OF_A_RULE:
            break
        thought = _thought(scene.situation.step.thought, change)
        if thought is not None and _is_other_action(scene, rule, change):
            found.append(NearMiss(rule.error_type, rule.name, thought, change.code))
    return found


def _proposed(scene: Scene, rule: Rule) -> list[Change]:
    try:
        return list({change.code: change for change in rule.propose(scene)}.values())
    except RecursionError:  # an expression that is nested too deeply to be compared
        return []


def _thought(clean: str, change: Change) -> str | None:
    """The thought that goes with the change; None where it would give the change away."""
    thought = change.thought or clean
    if change.before and change.after:
        thought = re.sub(rf"(?<!\w){re.escape(change.before)}(?!\w)", lambda _: change.after, thought)
    return None if _GIVEAWAY.search(thought) and not _GIVEAWAY.search(clean) else thought


def _is_other_action(scene: Scene, rule: Rule, change: Change) -> bool:
    code, clean = change.code, scene.source.code
    if not code.strip() or (parse_python(code) is not None) != rule.parses:
        return False
    if _normalised(code) == _normalised(clean) or action_signature(code, scene.tools) == scene.signature:
        return False
    if rule.error_type not in (ErrorType.TOOL_MISMATCH, ErrorType.NON_COMMIT):
        return True
    calls = extract_tool_calls(code, scene.tools)
    if rule.error_type == ErrorType.NON_COMMIT:
        return all(call.name != FINAL_ANSWER for call in calls)
    return primary_tool(calls) != primary_tool(extract_tool_calls(clean, scene.tools))


def _normalised(code: str) -> str:
    """Equal for code that differs in layout, comments and quotes alone."""
    tree = parse_python(code)
    try:
        return code.strip() if tree is None else ast.dump(tree)
    except RecursionError:
        return code.strip()
