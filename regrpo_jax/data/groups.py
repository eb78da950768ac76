"""Offline contrastive groups: one shared prefix and five short branches per Reflection-of-Thought record.

In the paper's conditioning a repair follows what it repairs, `context, a0, o0, z, a1`; the authors' release scores
every candidate directly after the context. `o0` and a repair's `a0` are context and carry no segment label. Pictures
that `o0` holds stand in the branch; a group keeps each of its pictures once.
"""

import dataclasses
from typing import Literal

import numpy as np

from regrpo_jax.data.chat import ChatError, TooLong
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.image_parts import images_before
from regrpo_jax.data.images import PackedImages
from regrpo_jax.records.candidates import Candidate, contrastive_candidates
from regrpo_jax.records.complexity import record_complexity
from regrpo_jax.records.types import RotRecord, Turn

Conditioning = Literal["paper", "release"]


@dataclasses.dataclass(frozen=True)
class Branch:
    """One candidate local trajectory, as tokens after the group's prefix.

    Attributes:
      label: correct, failed, reflect_correct, retry_correct or corrupted.
      tokens: int32.  # [token]
      segments: int8 `Segment`, nonzero exactly at scored tokens.  # [token]
      success: whether its last action is the right one.
      verifier_value: V in [0, 1].
      pictures: which of the group's images its image tokens stand for, in order.
    """

    label: str
    tokens: np.ndarray
    segments: np.ndarray
    success: bool
    verifier_value: float
    pictures: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Group:
    """A record's prefix and branches.

    Attributes:
      record_id: the record.
      prefix: int32, everything before the failed step, up to the assistant's header.  # [prefix]
      positions: int32.  # [prefix, 3]
      images: images of the prefix, then those of the branches, each once.
      branches: the candidates.
      complexity: of the record's failure, in [0, 1].
      prefix_images: how many of the images stand in the prefix; None for all.
    """

    record_id: str
    prefix: np.ndarray
    positions: np.ndarray
    images: PackedImages
    branches: tuple[Branch, ...]
    complexity: float = 0.0
    prefix_images: int | None = None


def build_group(
    record: RotRecord,
    reader: ConversationReader,
    *,
    conditioning: Conditioning,
    max_prefix: int,
    max_branch: int,
) -> Group:
    """Tokenises a record's contrastive group.

    Args:
      record: a validated record.
      conditioning: "paper" puts repairs after `a0, o0`; "release" puts every candidate after the context and
        takes the release's looser rule for when an action counts as right.
      max_prefix: most tokens of the prefix, without its last, which leads the branches.
      max_branch: most tokens of a branch.
    Raises:
      TooLong: the prefix or a branch is longer; nothing is ever cut.
      ChatError: the template does not fit.
      ImageError: an image file cannot be read.
    """
    context = record.conversation[: record.failed_turn]
    visible = images_before(record.conversation, len(context), record.images)
    prefix, positions, images = reader.read_prompt(context, visible)
    count = len(images.merged_grids)
    if conditioning == "paper":
        failure = record.conversation[: record.reflection_turn]
        visible = images_before(record.conversation, record.reflection_turn, record.images)
        images = reader.read_images(failure, visible)  # those of the context come first
    fed = len(prefix) - 1  # the last token leads the branches
    if fed > max_prefix:
        pictured = sum(images.token_counts[:count])
        raise TooLong(
            f"its prefix of {fed} tokens, {pictured} of them for images, exceeds the largest of "
            f"config.data.prefix_buckets ({max_prefix}); add a larger bucket or lower config.data.pixels",
            "data.prefix_buckets",
            fed,
        )
    branches = []
    for candidate in contrastive_candidates(record, strict=conditioning == "paper"):
        after_failure = candidate.after_failure and conditioning == "paper"
        branch = _build_branch(candidate, record, reader, prefix, images, count, after_failure)
        if len(branch.tokens) > max_branch:
            raise TooLong(
                f"the {branch.label} branch has {len(branch.tokens)} tokens but the largest of "
                f"config.data.branch_buckets is {max_branch}; add a larger bucket",
                "data.branch_buckets",
                len(branch.tokens),
            )
        branches.append(branch)
    complexity = record_complexity(record).score
    return Group(record.id, prefix, positions, images, tuple(branches), complexity, count)


def _build_branch(
    candidate: Candidate,
    record: RotRecord,
    reader: ConversationReader,
    prefix: np.ndarray,
    images: PackedImages,
    prefix_images: int,
    after_failure: bool,
) -> Branch:
    shown = record.reflection_turn if after_failure else record.failed_turn
    turns = [*record.conversation[:shown], Turn("assistant", candidate.reflection + candidate.action)]
    visible = images_before(record.conversation, shown, record.images)
    chat = reader.renderer.render(turns, visible, images.token_counts[: len(visible)])
    if not np.array_equal(chat.tokens[: len(prefix)], prefix):
        raise ChatError("the chat template renders the context differently once an assistant turn follows it")
    start, end = chat.spans[-1]
    labelled = np.where(np.arange(len(chat.tokens)) >= start, chat.segments, 0)
    end += int(reader.renderer.train_end_of_turn)
    return Branch(
        candidate.label,
        chat.tokens[len(prefix) : end],
        labelled[len(prefix) : end].astype(np.int8),
        candidate.success,
        candidate.verifier_value,
        tuple(range(prefix_images, len(visible))),
    )
