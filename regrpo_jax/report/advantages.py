"""What an update learnt from, token by token: runs of tokens that are one thing, coloured by their advantage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup
from regrpo_jax.data.rollout_credit import CreditSettings, judge, token_places
from regrpo_jax.report.files import LeftOut, Update
from regrpo_jax.report.images import ImageShelf, ShownImage

_MOST_GROUPS, _MOST_BRANCHES = 4, 6  # of an update that are shown
_MOST_CHARACTERS = 3000  # of a run of tokens
_NO_ADVANTAGE = 1e-6  # up to which it counts as none
_IMAGE_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")


class OwnCredit(NamedTuple):
    """Of one rollout, see `data.rollout_credit`: R and A of each place, nan where it was not.  # [place]

    names: of the places, for people. places: where each token is judged, -1 if it is not trained.  # [token]
    """

    names: tuple[str, ...]
    rewards: np.ndarray
    advantages: np.ndarray
    places: np.ndarray


class Judged(NamedTuple):
    """A group, what each of its rollouts was worth, and whether there was anything to prefer."""

    group: RolloutGroup
    credit: list[OwnCredit]
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
    """An episode of a group. times: how many branches were the same, token by token. judged: (what, R, A)."""

    times: int
    success: bool
    outcome: str
    judged: tuple[tuple[str, float, float], ...]
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
    told = judge(groups, settings, branches=max(2, *(len(group.rollouts) for group in groups)))
    names = tuple(_name(place, told.attempts) for place in range(told.rewards.shape[-1]))
    found = []
    for row, group in enumerate(groups):
        credit = []
        for branch, rollout in enumerate(group.rollouts):
            places = token_places(rollout, settings, told.attempts)  # [token]
            # It is compared at attempts that it did not need as well, and has no token there.
            own = np.arange(told.rewards.shape[-1]) % told.attempts == 0  # [place]
            own[places[places >= 0]] = True
            reached = told.reached[row, branch] & own  # [place]
            rewards = np.where(reached, told.rewards[row, branch], np.nan)  # [place]
            advantages = np.where(reached, told.advantages[row, branch], np.nan)  # [place]
            credit.append(OwnCredit(names, rewards, advantages, places))
        found.append(Judged(group, credit, bool(told.learnable[row].any())))
    return found


def _name(place: int, attempts: int) -> str:
    step, attempt = divmod(place, attempts)
    return f"step {step + 1}" if attempt == 0 else f"step {step + 1}, repair {attempt}"


def _spread(credit: Sequence[OwnCredit]) -> float:
    return max((float(np.abs(np.nan_to_num(one.advantages)).max(initial=0.0)) for one in credit), default=0.0)


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


def _stake(credit: Sequence[OwnCredit]) -> float:
    """How far the rewards of a place lie apart, at most; advantages may have been divided by that."""
    places = zip(*(one.rewards.tolist() for one in credit), strict=True)
    known = [[reward for reward in place if not np.isnan(reward)] for place in places]
    return max((max(rewards) - min(rewards) for rewards in known if rewards), default=0.0)


def _group(
    group: RolloutGroup, credit: Sequence[OwnCredit], tokenizer: PreTrainedTokenizerBase, shelf: ImageShelf
) -> ShownGroup:
    scale = _spread(credit)
    distinct: dict[tuple[object, ...], list[int]] = {}
    for place, rollout in enumerate(group.rollouts):
        if not rollout.dropped:
            distinct.setdefault((rollout.tokens.tobytes(), credit[place].rewards.tobytes()), []).append(place)
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


def _total(credit: OwnCredit) -> float:
    return float(np.nansum(credit.advantages))


def _branch(
    rollout: Rollout, credit: OwnCredit, times: int, scale: float, tokenizer: PreTrainedTokenizerBase
) -> ShownBranch:
    return ShownBranch(
        times=times,
        success=rollout.success,
        outcome=rollout.outcome,
        judged=tuple(
            (name, reward, advantage)
            for name, reward, advantage in zip(
                credit.names, credit.rewards.tolist(), credit.advantages.tolist(), strict=True
            )
            if not np.isnan(reward)
        ),
        runs=tuple(_runs(rollout, credit, scale, tokenizer)),
    )


def _runs(rollout: Rollout, credit: OwnCredit, scale: float, tokenizer: PreTrainedTokenizerBase) -> list[TokenRun]:
    changes = np.flatnonzero(np.diff(rollout.labels) | np.diff(credit.places)) + 1
    bounds = [0, *changes.tolist(), len(rollout.tokens)]
    runs = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        if start == end:
            continue
        place = credit.places[start]
        advantage = float(credit.advantages[place]) if place >= 0 else None
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
