"""What the report shows of advantages is what the training took, `data.rollout_credit`, token by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from regrpo_jax.agent.rollout import Label
from regrpo_jax.data.rollout_credit import CreditSettings, judge, token_places
from regrpo_jax.data.tokenizer import train_tokenizer
from regrpo_jax.report.advantages import shown_update
from regrpo_jax.report.files import LeftOut, Update
from regrpo_jax.report.images import ImageShelf
from tests.data.rollout_groups import make_group

BRANCHES = 5
SETTINGS = (
    CreditSettings("step"),
    CreditSettings("step", lambda_exec=2.0, eta=0.7, lambda_val=0.3, baseline="leave_one_out"),
    CreditSettings("step", "shared", normalize=True, clip_range=0.8),
    CreditSettings("step", "condition", lambda_val=0.3),
    CreditSettings("episode", "shared", lambda_val=0.3),
    CreditSettings("episode", "shared", baseline="leave_one_out", normalize=True),
    CreditSettings("step", normalize=True, epsilon=0.1),
)


class NumberedTokens:
    """A tokenizer whose tokens are their numbers."""

    def decode(self, tokens: Sequence[int], **_: object) -> str:
        return "".join(f"{token}." for token in tokens)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_trained_token_shows_its_own_advantage(settings: CreditSettings) -> None:
    group = make_group(1, branches=BRANCHES, dropped=(2,))
    wanted = judge([group], settings, branches=BRANCHES)
    shown = shown_update(Update(1, [group]), settings, NumberedTokens(), ImageShelf([])).groups[0]
    kept = [rollout for rollout in group.rollouts if not rollout.dropped]
    assert sum(branch.times for branch in shown.branches) == shown.played == len(kept) == BRANCHES - 1
    for branch in shown.branches:
        text = "".join(run.text for run in branch.runs)
        rollout = next(one for one in kept if NumberedTokens().decode(one.tokens.tolist()) == text)
        advantages = np.repeat(
            [np.nan if run.advantage is None else run.advantage for run in branch.runs],
            [run.tokens for run in branch.runs],
        )  # [token]
        places = token_places(rollout, settings, wanted.attempts)
        expected = np.where(places < 0, np.nan, wanted.advantages[0, rollout.branch][places])
        np.testing.assert_allclose(advantages, expected, 1e-3, 1e-4)
        labels = [run.label for run in branch.runs for _ in range(run.tokens)]
        assert labels == [Label(label).name.lower() for label in rollout.labels.tolist()]


def test_groups_with_most_at_stake_come_first_and_of_each_family_one() -> None:
    settings = CreditSettings("step", normalize=True)
    groups = [
        dataclasses.replace(make_group(seed, seed), family="even" if seed % 2 == 0 else "odd") for seed in range(10)
    ]
    shown = shown_update(Update(1, groups), settings, NumberedTokens(), ImageShelf([]))
    wanted = judge(groups, settings, branches=4)
    assert (shown.learnable, shown.of) == (int(wanted.learnable.any(axis=-1).sum()), 10)
    assert {group.family for group in shown.groups[:2]} == {"even", "odd"}
    with pytest.raises(LeftOut, match="update 3 had no group"):
        shown_update(Update(3, []), settings, NumberedTokens(), ImageShelf([]))


def test_a_prompt_shows_an_image_as_one_mark() -> None:
    tokenizer = train_tokenizer(["Task: find it."], vocab_size=300)
    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Task: find it."
    prefix = np.array(tokenizer(text)["input_ids"], np.int32)
    group = dataclasses.replace(make_group(0), prefix=prefix)
    shown = shown_update(Update(1, [group]), SETTINGS[0], tokenizer, ImageShelf([])).groups[0]
    assert shown.prompt == "<|im_start|>user\n[image]Task: find it."
