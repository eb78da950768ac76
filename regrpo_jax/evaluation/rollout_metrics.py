"""What became of many rollouts, as shares and means; and what about them should worry a person.

First-attempt success stands beside success, so that failing on purpose would show; needless reflections and
groundedness stand beside recovery, so that reflecting for its own sake would. What was dropped stands beside both, with
the success that there would be if all of it had failed: a failure cannot vanish from a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from regrpo_jax.agent.rollout import Label, Opener, Rollout, RolloutGroup
from regrpo_jax.environments.recovery import MOST_DROPPED

_MOST_TRUNCATED, _MOST_MALFORMED = 0.5, 0.5


def share(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else None


def rollout_metrics(rollouts: Sequence[Rollout], *, lost: int = 0) -> dict[str, float | None]:
    """Shares and means over the rollouts that count; None where nothing counts.

    lost: episodes that could not even begin; they are dropped as well. dropped_share: of all episodes.
    success_at_worst: of all of them, with the dropped ones as failures.
    recovery: success among the rollouts with a failed action. repair_at_1: of the first failed actions, those whose
    next action was right. trigger_precision: of the blocks that the gate opened, those after a failure.
    trigger_recall: of the failures that were followed by a turn, those with a block. needless: of the actions that
    went well and were followed by a turn, those with a block. tokens: sampled, of all; reflection_tokens: of a block;
    per success: of all rollouts over the number of successes.
    """
    counted = [rollout for rollout in rollouts if not rollout.dropped]
    fallen = [rollout for rollout in counted if rollout.failed]
    turns = [pair for rollout in counted for pair in zip(rollout.turns, rollout.turns[1:], strict=False)]
    after_failure = [after for before, after in turns if before.fell]
    after_success = [after for before, after in turns if before.status is not None and not before.fell]
    gated = [(before, after) for before, after in turns if after.reflection == Opener.GATE]
    blocks = [turn for rollout in counted for turn in rollout.reflections]
    reflected = sum(rollout.reflection_tokens() for rollout in counted)
    successes, episodes = sum(rollout.success for rollout in counted), len(rollouts) + lost
    return {
        "episodes": float(len(counted)),
        "dropped": float(episodes - len(counted)),
        "dropped_share": (episodes - len(counted)) / episodes if episodes else None,
        "success_at_worst": successes / episodes if episodes else None,
        "success": share(rollout.success for rollout in counted),
        "first_attempt_success": share(rollout.first_attempt_success for rollout in counted),
        "failed": share(rollout.failed for rollout in counted),
        "recovery": share(rollout.success for rollout in fallen),
        "repair_at_1": share(repaired_at_once(rollout) for rollout in fallen),
        "reflections": share(len(rollout.reflections) for rollout in counted),
        "needless": share(turn.reflection != Opener.NOBODY for turn in after_success),
        "trigger_precision": share(before.fell for before, _ in gated),
        "trigger_recall": share(turn.reflection != Opener.NOBODY for turn in after_failure),
        "grounded": share(turn.grounded for turn in blocks if not turn.needless),
        "malformed": share(turn.malformed for turn in blocks),
        "reflection_tokens": share(turn.reflection_tokens for turn in blocks),
        "reflection_tokens_per_success": reflected / successes if successes else None,
        "tokens": share(int((rollout.labels >= Label.REFLECTION).sum()) for rollout in counted),
        "tool_calls": share(rollout.tool_calls for rollout in counted),
        "truncated": share(rollout.truncated for rollout in counted),
    }


def repaired_at_once(rollout: Rollout) -> bool:
    """Whether the action after the first failed one was right."""
    run = [turn for turn in rollout.turns if turn.status is not None]
    first = next(number for number, turn in enumerate(run) if turn.fell)
    return first + 1 < len(run) and bool(run[first + 1].right)


def rollouts_of(groups: Iterable[RolloutGroup]) -> list[Rollout]:
    """All rollouts of all groups, dropped ones included."""
    return [rollout for group in groups for rollout in group.rollouts]


def by_family(groups: Sequence[RolloutGroup]) -> dict[str, dict[str, float | None]]:
    """`rollout_metrics` of each family."""
    names = sorted({group.family for group in groups})
    return {name: rollout_metrics(rollouts_of(g for g in groups if g.family == name)) for name in names}


def dropped_alarm(dropped: float, episodes: float) -> list[str]:
    """What should worry a person about so many dropped ones among all episodes; [] when nothing does."""
    if dropped <= MOST_DROPPED * episodes:
        return []
    return [f"{dropped:.0f} of {episodes:.0f} episodes were dropped as trouble of the sandbox"]


def alarms(values: Mapping[str, float | None]) -> list[str]:
    """What should worry a person about `rollout_metrics`; [] when nothing does."""
    episodes, dropped = values["episodes"] or 0.0, values["dropped"] or 0.0
    found = []
    found += dropped_alarm(dropped, episodes + dropped)
    if (values["truncated"] or 0.0) > _MOST_TRUNCATED:
        found.append(f"{values['truncated']:.0%} of the episodes ran out of tokens; raise config.agent.turn_tokens")
    if (values["malformed"] or 0.0) > _MOST_MALFORMED:
        found.append(f"{values['malformed']:.0%} of the reflections are malformed: the format collapses")
    return found
