"""What an update learnt from, token by token: runs of tokens that are one thing, coloured by their advantage."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup
from regrpo_jax.data.rollout_credit import CreditSettings, step_credit
from regrpo_jax.report.files import LeftOut, Update
from regrpo_jax.report.images import ImageShelf, ShownImage

_MOST_GROUPS, _MOST_BRANCHES = 4, 6  # of an update that are shown
_MOST_CHARACTERS = 3000  # of a run of tokens
_NO_ADVANTAGE = 1e-6  # up to which it counts as none
_IMAGE_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")


class Credit(NamedTuple):
    """Of one rollout: R and A of each step that it got to; an episode under one reward has one step.  # [step]"""

    rewards: np.ndarray
    advantages: np.ndarray


class Judged(NamedTuple):
    """A group, what each of its rollouts was worth, and whether there was anything to prefer."""

    group: RolloutGroup
    credit: list[Credit]
    learnable: bool


@dataclass(frozen=True)
class TokenRun:
    """Neighbouring tokens that are one thing. shade: -1 (worst of the group) .. 1 (best); None for untrained ones."""

    label: str
    text: str
    tokens: int
    advantage: float | None
    shade: float | None


@dataclass(frozen=True)
class ShownBranch:
    """An episode of a group. times: how many branches were the same, token by token. steps: (R, A) of each."""

    times: int
    success: bool
    outcome: str
    steps: tuple[tuple[float, float], ...]
    runs: tuple[TokenRun, ...]


@dataclass(frozen=True)
class ShownGroup:
    """A state and what was played from it. more: different episodes that are not shown."""

    task_id: str
    family: str
    prompt: str
    images: tuple[ShownImage, ...]
    solved: int
    played: int
    branches: tuple[ShownBranch, ...]
    more: int


@dataclass(frozen=True)
class ShownUpdate:
    """An update of the training, with those of its groups that taught it something."""

    number: int
    groups: tuple[ShownGroup, ...]
    learnable: int
    of: int


def shown_update(
    update: Update, settings: CreditSettings, tokenizer: PreTrainedTokenizerBase, shelf: ImageShelf
) -> ShownUpdate:
    """The groups in which most was at stake, one of each family first. LeftOut when the update had no group."""
    if not update.groups:
        raise LeftOut(f"update {update.number} had no group")
    judged = _judged(update.groups, settings)
    taught = [one for one in judged if one.learnable]
    groups = tuple(_group(one.group, one.credit, tokenizer, shelf) for one in _chosen(taught or judged))
    return ShownUpdate(update.number, groups, len(taught), len(judged))


def _judged(groups: Sequence[RolloutGroup], settings: CreditSettings) -> list[Judged]:
    """By the same function that judged them when they were trained on."""
    told = step_credit(groups, settings, branches=max(2, *(len(group.rollouts) for group in groups)))
    found = []
    for row, group in enumerate(groups):
        reached = told.reached[row]  # [branch, step]
        credit = [
            Credit(told.rewards[row, branch][reached[branch]], told.advantages[row, branch][reached[branch]])
            for branch in range(len(group.rollouts))
        ]
        found.append(Judged(group, credit, bool(told.learnable[row].any())))
    return found


def _spread(credit: Sequence[Credit]) -> float:
    return max((float(np.abs(one.advantages).max(initial=0.0)) for one in credit), default=0.0)


def _chosen(judged: Sequence[Judged]) -> list[Judged]:
    """Where most was at stake, but new families before further groups of the same."""
    order = sorted(range(len(judged)), key=lambda place: (-_stake(judged[place].credit), place))
    seen: dict[str, int] = {}
    ranked = []
    for rank, place in enumerate(order):
        family = judged[place].group.family
        seen[family] = seen.get(family, 0) + 1
        ranked.append((seen[family], rank, place))
    return [judged[place] for _, _, place in sorted(ranked)[:_MOST_GROUPS]]


def _stake(credit: Sequence[Credit]) -> float:
    """How far the rewards of a step lie apart, at most; advantages may have been divided by that."""
    steps = itertools.zip_longest(*(one.rewards.tolist() for one in credit))
    known = [[reward for reward in step if reward is not None] for step in steps]
    return max((max(rewards) - min(rewards) for rewards in known), default=0.0)


def _group(
    group: RolloutGroup, credit: Sequence[Credit], tokenizer: PreTrainedTokenizerBase, shelf: ImageShelf
) -> ShownGroup:
    scale = _spread(credit)
    distinct: dict[tuple[object, ...], list[int]] = {}
    for place, rollout in enumerate(group.rollouts):
        if not rollout.dropped:
            distinct.setdefault((rollout.tokens.tobytes(), *credit[place].rewards.tolist()), []).append(place)
    # Best and worst episodes first, so that what was preferred to what can be seen at a glance.
    order = sorted(distinct.values(), key=lambda places: (-_total(credit[places[0]]), places[0]))
    kept = order if len(order) <= _MOST_BRANCHES else order[: _MOST_BRANCHES // 2] + order[-(_MOST_BRANCHES // 2) :]
    return ShownGroup(
        task_id=group.task_id,
        family=group.family,
        prompt=_prompt(group, tokenizer),
        images=tuple(shelf.shown(reference) for reference in group.image_files),
        solved=sum(rollout.success for rollout in group.counted),
        played=len(group.counted),
        branches=tuple(
            _branch(group.rollouts[places[0]], credit[places[0]], len(places), scale, tokenizer) for places in kept
        ),
        more=len(order) - len(kept),
    )


def _total(credit: Credit) -> float:
    return float(credit.advantages.sum())


def _branch(
    rollout: Rollout, credit: Credit, times: int, scale: float, tokenizer: PreTrainedTokenizerBase
) -> ShownBranch:
    return ShownBranch(
        times=times,
        success=rollout.success,
        outcome=rollout.outcome,
        steps=tuple(zip(credit.rewards.tolist(), credit.advantages.tolist(), strict=True)),
        runs=tuple(_runs(rollout, credit, scale, tokenizer)),
    )


def _runs(rollout: Rollout, credit: Credit, scale: float, tokenizer: PreTrainedTokenizerBase) -> list[TokenRun]:
    steps = np.minimum(rollout.steps, max(0, len(credit.advantages) - 1))  # one step where the episode is judged whole
    changes = np.flatnonzero(np.diff(rollout.labels) | np.diff(steps)) + 1
    bounds = [0, *changes.tolist(), len(rollout.tokens)]
    runs = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        if start == end:
            continue
        advantage = (
            float(credit.advantages[steps[start]]) if rollout.trained[start] and len(credit.advantages) else None
        )
        shade = None if advantage is None else advantage / scale if abs(advantage) > _NO_ADVANTAGE else 0.0
        label = Label(int(rollout.labels[start])).name.lower()
        runs.append(TokenRun(label, _text(rollout.tokens[start:end], tokenizer), end - start, advantage, shade))
    return runs


def _prompt(group: RolloutGroup, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the policy was told first; the tokens of an image are one mark."""
    text = _text(group.prefix, tokenizer, most=10 * _MOST_CHARACTERS)
    start, padding, end = _IMAGE_TOKENS
    while padding * 2 in text:
        text = text.replace(padding * 2, padding)
    text = text.replace(f"{start}{padding}{end}", "[image]")
    return text if len(text) <= _MOST_CHARACTERS else f"[...] {text[-_MOST_CHARACTERS:]}"


def _text(tokens: np.ndarray, tokenizer: PreTrainedTokenizerBase, most: int = _MOST_CHARACTERS) -> str:
    text = str(tokenizer.decode(tokens.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return text if len(text) <= most else f"{text[:most]} [...]"
