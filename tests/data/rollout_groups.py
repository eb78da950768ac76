"""Random groups of rollouts whose books agree, as a policy of no use would play them; shared by several test files."""

from collections.abc import Sequence

import numpy as np

from regrpo_jax.agent.gate import GateDecision
from regrpo_jax.agent.rollout import Label, Opener, Rollout, RolloutGroup, RolloutTurn, check_rollout
from regrpo_jax.data.images import PackedImages
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.records.types import ImageReference, Status
from regrpo_jax.sandbox.results import ToolRun

IMAGE = 5  # the token that stands for an image feature
VOCAB = 40
PATCH_DIM = 3 * 14 * 14
STATUSES = (Status.OK, Status.EMPTY, Status.TOOL_ERROR, Status.INVALID_ACTION, Status.TIMEOUT)


def make_rollout(
    chance: np.random.Generator, group: int, branch: int, *, dropped: bool = False, version: int = 0, steps: int = 3
) -> Rollout:
    """An episode of one to `steps` steps, up to two turns each; a step went as its last turn did."""
    tokens: list[int] = []
    labels: list[int] = []
    of_step: list[int] = []
    turns = []

    def say(label: Label, count: int, step: int) -> None:
        tokens.extend(chance.integers(6, VOCAB, count).tolist())
        labels.extend([label] * count)
        of_step.extend([step] * count)

    begun = int(chance.integers(1, steps + 1))
    for step in range(begun):
        for attempt in range(int(chance.integers(1, 3))):
            start = len(tokens)
            say(Label.OPENING, int(chance.integers(0, 3)), step)
            sampled = len(tokens)
            reflects = attempt > 0 and bool(chance.integers(2))
            words = int(chance.integers(1, 5)) if reflects else 0
            say(Label.REFLECTION, words, step)
            say(Label.THOUGHT, int(chance.integers(0, 3)), step)
            say(Label.ACTION, int(chance.integers(1, 4)), step)
            gate = GateDecision(reflects, "tool_error", float(chance.random()), float(-np.inf if step == 0 else 0.5))
            turns.append(
                RolloutTurn(
                    start,
                    sampled,
                    len(tokens),
                    text=f'Thought: "ü" {chance.integers(99)}\n\u2028',
                    step=step,
                    status=STATUSES[max(0, int(chance.integers(-4, len(STATUSES))))],
                    observation="nothing\nat 'moon'",
                    right=(True, True, False, None)[int(chance.integers(4))],
                    reflection=Opener.GATE if reflects else Opener.NOBODY,
                    reflection_tokens=words,
                    grounded=reflects and bool(chance.integers(2)),
                    gate=gate if chance.integers(2) else None,
                    calls=(ToolRun("look", Status.OK, "'moon'", "17", recorded=None if reflects else True),),
                    problems=("no code",) if chance.integers(2) else (),
                )
            )
            say(Label.TEMPLATE, 1, step)
            say(Label.OBSERVATION, int(chance.integers(0, 4)), step)
    success = tuple({turn.step: turn.went_right for turn in turns}.values())
    label_array = np.array(labels, np.int8)
    logprobs = np.where(label_array >= Label.REFLECTION, chance.uniform(-5, 0, len(tokens)), 0).astype(np.float32)
    rollout = Rollout(
        task_id=f"task {group}",
        group=group,
        branch=branch,
        tokens=np.array(tokens, np.int32),
        labels=label_array,
        logprobs=logprobs,
        steps=np.array(of_step, np.int16),
        turns=tuple(turns),
        step_success=success,
        success=success[-1],
        outcome="answered",
        dropped=dropped,
        policy_version=version,
        seed=int(chance.integers(2**31)),
    )
    check_rollout(rollout)
    return rollout


def make_group(
    seed: int,
    group: int = 0,
    *,
    branches: int = 4,
    dropped: Sequence[int] = (),
    versions: Sequence[int] = (),
    steps: int = 3,
    images: int = 0,
    files: Sequence[str] = (),
) -> RolloutGroup:
    """A group; each image is one row of two tokens, four patches to a token.

    Args:
      dropped: branches that ended by trouble of ours.
      versions: policy version of each branch, 0 where none is given.
      images: number of images that it holds as patches.
      files: the same as files.
    """
    chance = np.random.default_rng([seed, group])
    body = chance.integers(6, VOCAB, int(chance.integers(4, 9)))
    prefix = np.concatenate([[6], np.full(2 * images, IMAGE), body]).astype(np.int32)
    grids = ((1, 2),) * images
    owner = np.repeat(np.arange(1, images + 1, dtype=np.int32), 8)
    places = np.array([[row, 2 * column + side] for column in range(2) for row in range(2) for side in range(2)])
    packed = PackedImages(
        chance.normal(size=(8 * images, PATCH_DIM)).astype(np.float32),
        np.tile(places, (images, 1)).astype(np.int32).reshape(-1, 2),
        owner,
        owner,
        grids,
    )
    rollouts = tuple(
        make_rollout(
            chance,
            group,
            branch,
            dropped=branch in dropped,
            version=versions[branch] if branch < len(versions) else 0,
            steps=steps,
        )
        for branch in range(branches)
    )
    return RolloutGroup(
        group=group,
        task_id=f"task {group}",
        family="ledger",
        error_type="",
        prefix=prefix,
        positions=rotary_positions(prefix == IMAGE, grids),
        images=packed,
        image_files=tuple(ImageReference(f"<image_{index:02d}>", path) for index, path in enumerate(files)),
        rollouts=rollouts,
    )
