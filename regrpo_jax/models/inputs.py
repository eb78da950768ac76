"""What crosses the bridge into the policy: arrays that the host computed, so that jitted code never looks at values.

Every array starts with the group (or row) axis, which is the one that data parallelism splits.
"""

from typing import Any

from flax import struct

Array = Any  # numpy on the host, jax.Array on a device and under jit


@struct.dataclass
class TokenBlock:
    """Tokens with the index arrays that the policy needs; leading axes are [group] or [group, branch].

    Attributes:
      tokens: int32 token ids.  # [.., token]
      segment_ids: int32, 0 at padding; a token attends only within its own segment id (packing).  # [.., token]
      positions: int32 rotary positions (time, row, column), equal for text.  # [.., token, 3]
      image_index: int32 index into the merged image features of the row (of a group: its prefix's and its branches'
        pictures together), -1 for text.  # [.., token]
    """

    tokens: Array
    segment_ids: Array
    positions: Array
    image_index: Array


@struct.dataclass
class ImagePatches:
    """All images of a row, each once, packed; patches of one 2x2 merge group are neighbours.

    Attributes:
      patches: flattened, normalised pixel patches.  # [group, patch, patch_dim]
      segment_ids: int32, which image of the row a patch belongs to, 0 at padding.  # [group, patch]
      positions: int32 row and column of the patch in its image.  # [group, patch, 2]
      window_ids: int32, which attention window of the row a patch belongs to, 0 at padding; the segment ids for a
        tower without windows.  # [group, patch]
      block: no image crosses a multiple of so many patches, so that a tower may run block by block; 0 for whole rows.
    """

    patches: Array
    segment_ids: Array
    positions: Array
    window_ids: Array
    block: int = struct.field(pytree_node=False, default=0)


@struct.dataclass
class PrefixCache:
    """Keys and values of a group's shared prefix, which every branch of the group attends to.

    Attributes:
      keys: after rotary embedding.  # [layer, group, prefix, kv_head, head_dim]
      values: # [layer, group, prefix, kv_head, head_dim]
      valid: bool, False at padding.  # [group, prefix]
      last_tokens: int32, the tokens before the first branch token, -1 where there is none.  # [group, mixing]
      features: of all images of the group, for the branches that show some, as the vision tower gives them; None
        without.  # [group, feature, width]
    """

    keys: Array
    values: Array
    valid: Array
    last_tokens: Array
    features: Array | None


@struct.dataclass
class PrefixLayers:
    """A `PrefixCache` as decoding reads it, see `decode_attention`: layers in runs, which are decoded in a loop.

    On a TPU all layers are one run, so that a program takes as long to compile for 80 layers as for one; a CPU would
    copy what a layer looks at in a loop, so there each layer is a run of its own.

    Attributes:
      keys: one array per run.  # [layer of run, group, kv_head, head_dim, prefix]
      values: one array per run.  # [layer of run, group, kv_head, prefix, head_dim]
      valid: bool, False at padding.  # [group, prefix]
      last_tokens: int32, the tokens before the first branch token, -1 where there is none.  # [group, mixing]
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    valid: Array
    last_tokens: Array

    @property
    def runs(self) -> tuple[int, ...]:
        """Layers of each run."""
        return tuple(len(keys) for keys in self.keys)


@struct.dataclass
class BranchCache:
    """Keys and values of the branches' own tokens while they are being decoded; buffers of fixed length.

    All branches write to the same slot at the same time; a branch that has nothing to say there leaves it invalid.

    Attributes:
      keys: one array per run of layers.  # [layer of run, group * branch, kv_head, head_dim, slot]
      values: one array per run.  # [layer of run, group * branch, kv_head, slot, head_dim]
      valid: bool, whether the slot holds a token of the branch.  # [group, branch, slot]
      last_tokens: int32, the tokens before the next one, -1 where there is none.  # [group, branch, mixing]
      length: int32 scalar, slots written so far (the same for all branches).
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    valid: Array
    last_tokens: Array
    length: Array
