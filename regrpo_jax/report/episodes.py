"""Episodes for a person to read: a fixed choice of recoveries, failures and first-try successes, turn by turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from regrpo_jax.agent.parse import parse_turn
from regrpo_jax.agent.policy import ACTION_OPENING, REFLECTION_OPENING
from regrpo_jax.agent.rollout import Opener, Rollout, RolloutGroup, RolloutTurn
from regrpo_jax.report.files import BARE, SPLITS, Played
from regrpo_jax.report.images import ImageShelf, ShownImage

_MOST_CHARACTERS = 4000  # of a part of a turn, and of an observation
_KINDS: Sequence[tuple[str, int, Callable[[Rollout], bool]]] = (
    ("recovered", 5, lambda rollout: rollout.success and rollout.failed),
    ("failed", 4, lambda rollout: not rollout.success),
    ("solved at once", 3, lambda rollout: rollout.first_attempt_success),
)


@dataclass(frozen=True)
class Segment:
    """A part of a turn as written: "opening", "reflection", "thought" or "action"."""

    label: str
    text: str


@dataclass(frozen=True)
class ShownTurn:
    """A turn and what came of it; `verdict` says whether the action was right, `gate` what was decided after it."""

    number: int
    segments: tuple[Segment, ...]
    status: str
    observation: str
    images: tuple[ShownImage, ...]
    verdict: str
    gate: str
    gate_open: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ShownEpisode:
    """kind: one of `_KINDS`. others: (policy, successes, episodes) of every policy on the same task."""

    kind: str
    task_id: str
    family: str
    error_type: str
    instruction: str
    expected: str
    outcome: str
    success: bool
    images: tuple[ShownImage, ...]
    turns: tuple[ShownTurn, ...]
    others: tuple[tuple[str, int, int], ...]


def reading_policy(titles: Sequence[str]) -> str:
    """The policy whose episodes are worth reading: the last that was free to reflect, on the first split."""
    own = [title for title in titles if title.rpartition(", ")[2] not in SPLITS] or titles
    return next((title for title in reversed(own) if BARE not in title), own[-1])


def shown_episodes(played: Played, others: Sequence[Played], shelf: ImageShelf) -> list[ShownEpisode]:
    """About a dozen episodes of one policy, one of a task; the same every time.

    Args:
      others: all policies whose episodes are known.
    """
    chosen: list[tuple[str, RolloutGroup, Rollout]] = []
    taken: set[str] = set()
    for kind, most, wanted in _KINDS:
        found = [
            (group, rollout)
            for group in played.groups
            if group.task_id not in taken and (rollout := _first(group, wanted)) is not None
        ]
        for group, rollout in _families_in_turn(found)[:most]:
            taken.add(group.task_id)
            chosen.append((kind, group, rollout))
    return [_episode(kind, group, rollout, played, others, shelf) for kind, group, rollout in chosen]


def reflection_lengths(played: Played) -> list[int]:
    """Tokens of every reflection of the episodes that count."""
    rollouts = (rollout for group in played.groups for rollout in group.counted)
    return [turn.reflection_tokens for rollout in rollouts for turn in rollout.reflections]


def _first(group: RolloutGroup, wanted: Callable[[Rollout], bool]) -> Rollout | None:
    return next((rollout for rollout in group.counted if wanted(rollout)), None)


def _families_in_turn(found: Iterable[tuple[RolloutGroup, Rollout]]) -> list[tuple[RolloutGroup, Rollout]]:
    """The first of each family, then the second of each, and so on."""
    seen: dict[str, int] = {}
    ranked = []
    for place, pair in enumerate(found):
        family = pair[0].family
        seen[family] = seen.get(family, 0) + 1
        ranked.append((seen[family], place, pair))
    return [pair for _, _, pair in sorted(ranked, key=lambda one: one[:2])]


def _episode(
    kind: str, group: RolloutGroup, rollout: Rollout, played: Played, others: Sequence[Played], shelf: ImageShelf
) -> ShownEpisode:
    task = played.tasks.get(group.task_id)
    return ShownEpisode(
        kind=kind,
        task_id=group.task_id,
        family=group.family,
        error_type=group.error_type,
        instruction=_cut(task.instruction) if task else "",
        expected=_cut(" | ".join(map(str, task.checker.values))) if task else "",
        outcome=rollout.outcome,
        success=rollout.success,
        images=tuple(shelf.shown(reference) for reference in group.image_files),
        turns=tuple(_turn(number, turn, shelf) for number, turn in enumerate(rollout.turns, 1)),
        others=tuple(told for one in others if (told := _share_of(one, group.task_id))[2]),
    )


def _share_of(played: Played, task_id: str) -> tuple[str, int, int]:
    counted = [rollout for group in played.groups if group.task_id == task_id for rollout in group.counted]
    return played.title, sum(rollout.success for rollout in counted), len(counted)


def _turn(number: int, turn: RolloutTurn, shelf: ImageShelf) -> ShownTurn:
    verdicts = {True: "right", False: "wrong", None: ""}
    return ShownTurn(
        number=number,
        segments=tuple(turn_segments(turn)),
        status=str(turn.status or ("held back" if turn.held_back else "not run")),
        observation=_cut(turn.observation),
        images=tuple(shelf.shown(reference) for reference in turn.images),
        verdict=verdicts[turn.right] if turn.status is not None else "",
        gate=_gate_words(turn),
        gate_open=turn.gate is not None and turn.gate.open,
        notes=tuple(_notes(turn)),
    )


def turn_segments(turn: RolloutTurn) -> list[Segment]:
    """The parts of a turn in order; together they are its text."""
    parsed = parse_turn(turn.text)
    opening = len(_opening(turn))
    marks = [(0, "opening"), (opening, "reflection"), (max(opening, parsed.reflection_end), "thought")]
    marks += [(max(opening, parsed.action_start), "action"), (len(turn.text), "")]
    pairs = zip(marks, marks[1:], strict=False)
    return [Segment(label, _cut(turn.text[start:end])) for (start, label), (end, _) in pairs if end > start]


def _opening(turn: RolloutTurn) -> str:
    """The words that were put into the policy's mouth."""
    if turn.sampled_from == turn.start:
        return ""
    openings = (REFLECTION_OPENING, ACTION_OPENING)
    return next((opening for opening in openings if turn.text.startswith(opening)), "")


def _gate_words(turn: RolloutTurn) -> str:
    """What the gate decided after the action, and on which numbers."""
    gate = turn.gate
    if gate is None:
        return ""
    reasons = {"none": "nothing asks for a reflection", "never": "reflections are switched off",
               "block_limit": "this step had its reflection", "infra_error": "trouble of ours"}  # fmt: skip
    words = f"{'opens' if gate.open else 'stays closed'}: {reasons.get(gate.reason, gate.reason.replace('_', ' '))}"
    below = f", threshold {gate.threshold:.3f}" if math.isfinite(gate.threshold) else ""
    return f"{words} (confidence {gate.confidence:.3f}{below})"


def _notes(turn: RolloutTurn) -> list[str]:
    found = []
    if turn.reflection != Opener.NOBODY:
        who = "the gate opened it" if turn.reflection == Opener.GATE else "the policy's own will"
        found.append(f"reflection of {turn.reflection_tokens} tokens, {who}")
        if not turn.malformed:
            found.append("evidence quotes the observation" if turn.grounded else "evidence not in the observation")
    found += ["needless"] * turn.needless + ["held back before it ran"] * turn.held_back
    return [*found, *(problem.replace("_", " ") for problem in turn.problems)]


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} [...]"
