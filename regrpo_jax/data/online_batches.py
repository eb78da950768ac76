"""Groups of rollouts as arrays: the layout of `GroupBatch`, with who sampled each token and what it was worth.

Tokens and log-probs are taken as they were sampled. A dropped rollout leaves an empty branch: nothing of it enters.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from flax import struct

from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup
from regrpo_jax.core.step_advantages import at_tokens
from regrpo_jax.data.batches import bucket_length, collate_prefixes, fed_places
from regrpo_jax.data.chat import Segment
from regrpo_jax.data.groups import Group
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.images import cached_image, pack_images
from regrpo_jax.data.rollout_credit import CreditSettings, judge, token_places
from regrpo_jax.errors import UserError
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.models.inputs import Array, ImagePatches, TokenBlock

SEGMENT_OF_LABEL = np.array(
    [
        {Label.REFLECTION: Segment.REFLECTION, Label.THOUGHT: Segment.ACTION, Label.ACTION: Segment.ACTION}.get(
            label, Segment.NONE
        )
        for label in Label
    ],
    np.int8,
)
_at_tokens = jax.jit(at_tokens)


@struct.dataclass
class OnlineBatch:
    """Rollouts of one update: prefixes padded on the left, branches on the right.

    Rows beyond the groups that there are hold a real group with nothing to train, so that every batch has one shape.

    Attributes:
      prefix: without its last token, which leads every branch.  # [group, prefix]
      images: patches of the prefixes and branches, or None in a batch without images.
      branches: the tokens a branch is fed.  # [group, branch, token]
      targets: int32, the token that each fed token predicts.  # [group, branch, token]
      segments: int8 `Segment` of the targets, nonzero exactly at tokens that the policy sampled and that may train.
        # [group, branch, token]
      behaviour_logprobs: float32 log-probs under the policy that sampled, 0 at other tokens.  # [group, branch, token]
      advantages: float32, 0 at other tokens.  # [group, branch, token]
      keep: bool, tokens of a place that has something to prefer; see `data.rollout_credit`.  # [group, branch, token]
      stale: bool, branches that another policy sampled than the one this update starts from.  # [group, branch]
      rewards: float32 R of each place.  # [group, branch, place]
      reached: bool, places that a branch got to.  # [group, branch, place]
    """

    prefix: TokenBlock
    images: ImagePatches | None
    branches: TokenBlock
    targets: Array
    segments: Array
    behaviour_logprobs: Array
    advantages: Array
    keep: Array
    stale: Array
    rewards: Array
    reached: Array


def collate_rollouts(
    groups: Sequence[RolloutGroup],
    *,
    rows: int,
    branches: int,
    credit: CreditSettings,
    policy_version: int | None,
    image_token_id: int,
    prefix_buckets: Sequence[int],
    branch_buckets: Sequence[int],
    train_truncated: bool = True,
    own_rows: Sequence[int] | None = None,
) -> OnlineBatch:
    """Judges and pads groups to the smallest buckets that hold them; groups without a counted rollout are left out.

    Args:
      groups: at most `rows`, each of at most `branches` rollouts.
      rows: groups of the batch, a multiple of the devices and microbatches that share it.
      policy_version: of the policy that this update starts from; None where another engine sampled all of it.
      train_truncated: whether episodes that ran out of tokens are trained; they are compared with the others anyway.
      own_rows: the rows that come back, padded as all of them want it; None for all.
    Raises:
      UserError: no bucket is large enough, image tokens and features disagree, or every rollout was dropped.
      ValueError: too many groups or rollouts, or a rollout's books do not agree.
    """
    used = [group for group in groups if group.counted]
    if not used:
        why = next(
            (rollout.error for group in groups for rollout in group.rollouts if rollout.error), "nobody says why"
        )
        raise UserError(f"every rollout of this update was dropped; the first because {why}")
    if len(groups) > rows or max(len(group.rollouts) for group in used) > branches:
        raise ValueError(f"{len(groups)} groups do not fit into {rows} rows of {branches} branches")
    judged = judge(used, credit, branches=branches)
    longest = max(len(rollout.tokens) for group in used for rollout in group.counted)
    length = bucket_length(longest, branch_buckets, "config.data.branch_buckets")
    prefixes = [_prefix(group) for group in used]
    prefix, images = collate_prefixes(
        prefixes + prefixes[-1:] * (rows - len(used)),
        image_token_id=image_token_id,
        buckets=prefix_buckets,
        rows=own_rows,
    )
    shape = (rows, branches, length)
    places = np.full(shape, -1, np.int32)
    batch = OnlineBatch(
        prefix=prefix,
        images=images,
        branches=TokenBlock(
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
            np.zeros((*shape, 3), np.int32),
            np.full(shape, -1, np.int32),
        ),
        targets=np.zeros(shape, np.int32),
        segments=np.zeros(shape, np.int8),
        behaviour_logprobs=np.zeros(shape, np.float32),
        advantages=np.zeros(shape, np.float32),
        keep=np.zeros(shape, bool),
        stale=np.zeros(shape[:2], bool),
        rewards=_in_rows(judged.rewards, rows),
        reached=_in_rows(judged.reached, rows),
    )
    for row, group in enumerate(used):
        known = {path: index for index, path in enumerate(image_paths(group))}
        for column, rollout in enumerate(group.rollouts):
            if not rollout.dropped:
                at, block = (row, column), batch.branches
                block.positions[at], block.image_index[at] = fed_places(
                    rollout.tokens,
                    length,
                    int(group.positions[-1].max()),
                    prefixes[row].images,
                    [known[image.path] for image in rollout.image_files],
                    image_token_id,
                    f"{rollout.task_id}, branch {rollout.branch}",
                )
                batch.stale[row, column] = rollout.policy_version != policy_version
                places[row, column, : len(rollout.tokens)] = token_places(rollout, credit, judged.attempts)
                if rollout.truncated and not train_truncated:
                    places[row, column] = -1
                _write(batch, (row, column), group.prefix[-1], rollout, places[row, column] >= 0)
    learnable = _in_rows(judged.learnable, rows)[:, None] & batch.reached  # [row, branch, place]
    batch = dataclasses.replace(
        batch,
        advantages=np.asarray(_at_tokens(_in_rows(judged.advantages, rows), places)),
        keep=np.asarray(_at_tokens(learnable, places)),
    )
    return batch if own_rows is None else _with_rows(batch, own_rows)


def _with_rows(batch: OnlineBatch, own_rows: Sequence[int]) -> OnlineBatch:
    """These rows of all arrays but those of the prefixes and pictures, which have no others."""
    names = [field.name for field in dataclasses.fields(batch) if field.name not in ("prefix", "images")]
    rest = {name: getattr(batch, name) for name in names}
    return dataclasses.replace(batch, **jax.tree.map(lambda array: array[list(own_rows)], rest))


def with_images(group: RolloutGroup, settings: ImageSettings | None, vision: VisionConfig | None) -> RolloutGroup:
    """The group with its images as patches, made of the files: the prefix's, then those that its episodes saw.

    Args:
      settings, vision: as in `examples.ConversationReader`.
    Raises:
      ImageError: a file is no longer a readable image.
      ValueError: there are images, and the policy is text-only.
    """
    paths = image_paths(group)
    if paths and settings is None:
        raise ValueError(f"the group {group.group} of task {group.task_id} has images, but the policy is text-only")
    opened = [cached_image(path, settings) for path in paths if settings is not None]
    return dataclasses.replace(group, images=pack_images(opened, vision))


def lacks_images(group: RolloutGroup) -> bool:
    """Whether its episodes saw images that are not among its patches; see `with_images`."""
    known = 0 if group.images is None else len(group.images.merged_grids)
    return len(image_paths(group)) > max(known, len(group.image_files))


def image_paths(group: RolloutGroup) -> list[str]:
    """The images of a group in the order of its patches: those of the prefix, then those of its branches, each once.

    Files are named by what they hold, so that equal pictures have one path. Dropped rollouts have none.
    """
    found = [image.path for image in group.image_files]
    shown = [image.path for rollout in group.counted for image in rollout.image_files]
    return [*found, *dict.fromkeys(path for path in shown if path not in found)]


def _write(batch: OnlineBatch, at: tuple[int, int], lead: int, rollout: Rollout, judged: np.ndarray) -> None:
    """Puts the tokens of a rollout into its branch; judged: those that have a place, and are trained.  # [token]"""
    row, column = at
    size = len(rollout.tokens)
    trained = judged[:size]  # [token]
    batch.targets[row, column, :size] = rollout.tokens
    batch.branches.tokens[row, column, :size] = np.concatenate([[lead], rollout.tokens])[:size]
    batch.branches.segment_ids[row, column, :size] = 1
    batch.segments[row, column, :size] = np.where(trained, SEGMENT_OF_LABEL[rollout.labels], 0)
    batch.behaviour_logprobs[row, column, :size] = np.where(trained, rollout.logprobs, 0)


def _prefix(group: RolloutGroup) -> Group:
    if group.images is None:
        raise ValueError(f"the group {group.group} of task {group.task_id} has no packed images; see `with_images`")
    paths, count = image_paths(group), None
    if len(paths) > len(group.image_files):
        count = len(group.image_files)
        if lacks_images(group):
            raise ValueError(
                f"the group {group.group} of task {group.task_id} lacks images of rollouts; see `with_images`"
            )
    return Group(group.task_id, group.prefix, group.positions, group.images, (), prefix_images=count)


def _in_rows(values: np.ndarray, rows: int) -> np.ndarray:
    """[group, ..] -> [row, ..], 0 in rows without a group."""
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])
