"""How hard a failure is to reflect on, counted from its texts: what must be told apart, chained, and written down.

Source: the issue of the data engine asks for a measure of "reasoning complexity"; the paper (arXiv 2606.31392) has
none. These three counts need no model, so that they can be checked by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from regrpo_jax.records.actions import KNOWN_TOOLS, code_of
from regrpo_jax.records.clauses import body_start, clauses, holds_value, slots_of, values_in, values_in_slot
from regrpo_jax.records.differences import Change, ChangeKind, difference
from regrpo_jax.records.observation_text import is_observation_text, strip_observation
from regrpo_jax.records.reflection import quoted_span
from regrpo_jax.records.tool_names import tools_of
from regrpo_jax.records.types import Complexity, Reflection, RotRecord

# At these counts (beyond the least there can be) a part of the score is one half.
HALF_CANDIDATES, HALF_STEPS, HALF_WORDS = 3, 2, 30


def complexity_score(candidates: int, steps_back: int, length: int) -> float:
    """The mean of n / (n + half) over the three counts: 0 at the least, below 1, growing with each of them."""
    counts = ((candidates - 1, HALF_CANDIDATES), (steps_back, HALF_STEPS), (length, HALF_WORDS))
    return round(sum(count / (count + half) for count, half in counts) / len(counts), 6)


def complexity(
    failed_action: str,
    corrected_action: str,
    observation: str,
    reflection: Reflection,
    earlier_observations: Sequence[str],
    tools: frozenset[str] = KNOWN_TOOLS,
) -> Complexity:
    """The complexity of a failure; actions are whole turns or bare code, observations have no step header.

    earlier_observations: of the steps before the failed one, in order. candidates: see `_candidates`. steps_back: 0
    when the new value is in none of the observations (the task tells it, or the picture), else the clauses that
    lead from the evidence to it, each sharing a value with the one before; a clause of an earlier observation
    counts the steps between as well. length: words of evidence and fix plan.
    """
    changed = difference(code_of(failed_action), code_of(corrected_action), tools).changes
    steps_back = max((_steps_back(c.new, reflection.evidence, observation, earlier_observations) for c in changed
                      if c.new and c.new not in _old(changed)), default=0)  # fmt: skip
    told = (observation, *reversed(earlier_observations))
    candidates = max((_candidates(change, _old(changed), told, tools) for change in changed), default=1)
    length = len(reflection.evidence.split()) + len(reflection.fix_plan.split())
    return Complexity(candidates, steps_back, length, complexity_score(candidates, steps_back, length))


def record_complexity(record: RotRecord) -> Complexity:
    """The complexity of any record, with the tools it names."""
    before = [turn.content for turn in record.conversation[: record.failed_turn] if turn.role == "user"]
    earlier = [strip_observation(text) for text in before if is_observation_text(text)]
    return complexity(
        record.failed_action,
        record.corrected_action,
        strip_observation(record.failed_observation),
        record.reflection,
        earlier,
        tools_of(record),
    )


def _old(changes: Sequence[Change]) -> frozenset[str]:
    return frozenset(change.old for change in changes)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).removeprefix("-").isdigit()


def _candidates(change: Change, failed: frozenset[str], told: Sequence[str], tools: frozenset[str]) -> int:
    """How many values might be the new one, in the last observation that tells it, else in the failed one.

    Of the same kind (a tool, a number or a name), other than what failed, and, where the new value itself is told,
    standing behind the same word: `"Ann" at "bridge", "Leo" at "tiger"` has two for `tiger`.
    """
    bodies = [text[body_start(text) :] for text in told]
    body = next((text for text in bodies if change.new in values_in(text)), bodies[0])
    slots = slots_of(body, change.new)
    if slots:
        found = values_in_slot(body, slots)
    elif change.kind == ChangeKind.TOOL:
        found = tuple(word.strip("\"'`.,:;()") for word in body.split())
    else:
        found = values_in(body)
    if change.kind == ChangeKind.TOOL and not slots:
        alike = {value for value in found if value in tools}
    else:
        alike = {value for value in found if _is_number(value) == _is_number(change.new)}
    return max(1, len(alike - failed))


def _steps_back(value: str, evidence: str, observation: str, earlier: Sequence[str]) -> int:
    """Clauses from the evidence to one that holds `value`; the far ones of earlier observations cost their distance."""
    told = [(clause, 0) for clause in clauses(observation)]
    told += [(clause, back) for back, text in enumerate(reversed(earlier), start=1) for clause in clauses(text)]
    if not any(holds_value(clause, value) for clause, _ in told):
        return 0
    quoted = quoted_span(evidence, observation)
    start = [clause for clause in clauses(observation) if quoted and (quoted in clause or clause in quoted)]
    return _chain(start, value, told)


def _chain(start: Sequence[str], value: str, told: Sequence[tuple[str, int]]) -> int:
    """The least number of clauses, plus distances; two clauses are linked by a value that both hold."""
    reached = {name for clause in start for name in values_in(clause)}
    if any(holds_value(clause, value) for clause in start):
        return 1
    waiting, hops = [pair for pair in told if pair[0] not in start], 1
    while True:
        hops += 1
        linked = [pair for pair in waiting if reached.intersection(values_in(pair[0]))]
        ends = [back for clause, back in linked if holds_value(clause, value)]
        if ends:
            return hops + min(ends)
        if not linked:  # told, but apart from the evidence: looked up once more
            return 2 + min(back for clause, back in told if holds_value(clause, value))
        waiting = [pair for pair in waiting if pair not in linked]
        reached |= {name for clause, _ in linked for name in values_in(clause)}
