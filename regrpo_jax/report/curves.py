"""Which curves a run has: what is drawn together, in the order in which a person asks for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrpo_jax.report.files import LeftOut, Lines, is_number

_MOST_POINTS = 240  # of a curve; more are averaged in bins
_SMOOTHED = 5  # points of a running mean, where there are enough


@dataclass(frozen=True)
class Curve:
    """steps, values: as measured (or means of bins); smooth: a centred running mean, () for short curves."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    smooth: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Curves over the updates of a stage. share: values are drawn in percent, from 0 to 100."""

    title: str
    caption: str
    share: bool
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class _Plan:
    title: str
    caption: str
    names: Mapping[str, str]  # name in metrics.jsonl -> what a person reads
    share: bool = False


_ONLINE = (
    _Plan(
        "Success",
        "Of the episodes played for an update: solved at all, solved without any failed action, and solved among "
        "those in which an action failed (recovery).",
        {
            "rollouts/success": "success",
            "rollouts/first_attempt_success": "first attempt",
            "rollouts/recovery": "recovery",
        },
        True,
    ),
    _Plan(
        "What should stay low",
        "Reflections although nothing had gone wrong (needless), reflections that break the format (malformed), and "
        "episodes that ran out of tokens (truncated).",
        {"rollouts/needless": "needless", "rollouts/malformed": "malformed", "rollouts/truncated": "truncated"},
        True,
    ),
    _Plan(
        "Length of reflections",
        "Tokens of one reflection, and what all reflections cost for each success.",
        {
            "rollouts/reflection_tokens": "tokens of a reflection",
            "rollouts/reflection_tokens_per_success": "for each success",
        },
    ),
    _Plan(
        "Groups that teach something",
        "Share of the groups whose episodes differ in reward, so that one can be preferred to another.",
        {"rollouts/useful_groups": "useful groups"},
        True,
    ),
    _Plan(
        "Reward",
        "Mean over the steps that were trained: success, less the price of reflecting.",
        {"reward": "reward"},
    ),
    _Plan(
        "Tokens of an episode",
        "All that the policy wrote, reflections included.",
        {"rollouts/tokens": "tokens"},
    ),
)
_POLICY = (
    _Plan(
        "Distance from the start (KL)",
        "How far the policy has moved from the one before the stage, in nats per token.",
        {"action/kl": "action", "reflection/kl": "reflection"},
    ),
    _Plan(
        "Entropy",
        "How undecided the policy is about its next token, in nats; at 0 it explores no more.",
        {"action/entropy": "action", "reflection/entropy": "reflection"},
    ),
    _Plan(
        "Clipped tokens",
        "Share of the tokens whose update was clipped because the policy had moved too far on them.",
        {"action/clip_share": "action", "reflection/clip_share": "reflection"},
        True,
    ),
)
_TIME = _Plan(
    "Seconds",
    "Wall-clock time from one point to the next; the first ones compile programs.",
    {"seconds": "in all", "seconds/play": "playing"},
)
_LOSS = _Plan("Loss", "What the optimizer lowers; in the warm start, nats per trained token.", {"loss": "loss"})
_STAGES: Mapping[str, tuple[str, tuple[_Plan, ...]]] = {
    "online": ("Online training: the policy plays and learns from its own episodes", (*_ONLINE, *_POLICY, _TIME)),
    "sft": ("Warm start: supervised training on demonstrations (SFT)", (_LOSS, _POLICY[1], _TIME)),
    "rl": ("Offline ReGRPO on recorded groups", (_LOSS, *_POLICY[:2], _TIME)),
    "preference": ("Preference training (DPO) on failed and corrected actions", (_LOSS, _TIME)),
}


def stage_panels(lines: Lines) -> list[tuple[str, list[Panel]]]:
    """(title of a stage, its panels), the online stage first; raises LeftOut where nothing can be drawn."""
    found = []
    for stage, (title, plans) in _STAGES.items():
        panels = [panel for plan in plans if (panel := _panel(plan, lines.get(stage, ()))).curves]
        if panels:
            found.append((title, panels))
    if not found:
        raise LeftOut("metrics.jsonl holds no line of a training stage")
    return found


def _panel(plan: _Plan, lines: Sequence[Mapping[str, Any]]) -> Panel:
    curves = [_curve(label, name, lines) for name, label in plan.names.items()]
    return Panel(plan.title, plan.caption, plan.share, tuple(curve for curve in curves if curve.values))


def _curve(label: str, name: str, lines: Sequence[Mapping[str, Any]]) -> Curve:
    points = [(float(line["step"]), float(line[name])) for line in lines if _says(line, name)]
    size = max(1, math.ceil(len(points) / _MOST_POINTS))
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    steps = tuple(_mean([step for step, _ in part]) for part in bins)
    values = tuple(_mean([value for _, value in part]) for part in bins)
    return Curve(label, steps, values, running_mean(values) if len(values) >= 2 * _SMOOTHED else ())


def _says(line: Mapping[str, Any], name: str) -> bool:
    """Whether a line has a value; a mean over no tokens is written as 0 and is none."""
    segment = name.split("/")[0]
    counts = ("token_count", "policy_token_count") if name.endswith("clip_share") else ("token_count",)
    return is_number(line.get(name)) and all(line.get(f"{segment}/{count}") != 0 for count in counts)


def running_mean(values: Sequence[float]) -> tuple[float, ...]:
    """A centred mean over `_SMOOTHED` values, over fewer near the ends."""
    half = _SMOOTHED // 2
    return tuple(_mean(values[max(0, place - half) : place + half + 1]) for place in range(len(values)))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
