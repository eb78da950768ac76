"""Sizes of a policy, as plain frozen dataclasses that jit can hash; the `tiny` preset lives here too."""

import dataclasses
from typing import Literal

RematPolicy = Literal["none", "dots", "full"]
AttentionBackend = Literal["xla", "cudnn", "splash"]
TowerActivation = Literal["quick_gelu", "gelu_tanh"]


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower of Qwen2-VL, Qwen2.5-VL or Qwen3-VL (`Qwen2VLVisionConfig` and the like of transformers).

    Attributes:
      gated: Qwen2.5-VL's blocks, with RMSNorm and SwiGLU in the place of LayerNorm and a GELU.
      activation: of blocks that are not gated: quick GELU in Qwen2-VL, the tanh form of GELU in Qwen3-VL.
      patch_bias: whether the projection of a patch has a bias, as in Qwen3-VL.
      window_size: side, in pixels, of the square windows that attention stays in; 0 for none.
      full_attention_blocks: with windows, the blocks that attend within the whole image all the same.
      learned_grid: side of a grid of learnt absolute position embeddings, one for a row and a column, added to the
        patches; 0 for every Hugging Face model. From scratch a small policy learns where things are far sooner with it.
      interpolated_grid: side of a grid of learnt position embeddings that is stretched over each image, whatever its
        size, and read between its points, as in Qwen3-VL; 0 for those whose rotary embedding knows only distances.
      deepstack_blocks: in rising order, the blocks whose output is merged too; what comes from the k-th of them is
        added behind the k-th decoder layer, as in Qwen3-VL (DeepStack, arXiv 2406.04334).
      lora_alpha: numerator of the scale of an adapter on the tower.
    """

    depth: int
    embed_dim: int
    num_heads: int
    intermediate_size: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3
    gated: bool = False
    activation: TowerActivation = "quick_gelu"
    patch_bias: bool = False
    window_size: int = 0
    full_attention_blocks: tuple[int, ...] = ()
    learned_grid: int = 0
    interpolated_grid: int = 0
    deepstack_blocks: tuple[int, ...] = ()
    lora_alpha: float = 16.0

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def window_patches(self) -> int:
        """Side of an attention window in patches, a whole number of merge groups; 0 without windows."""
        return self.window_size // (self.patch_size * self.spatial_merge_size) * self.spatial_merge_size

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch: channels * frames * height * width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Slower rotary frequencies for longer contexts (`rope_type: llama3` of transformers, Llama 3.1 and later).

    Attributes:
      factor: by which the slowest frequencies are divided.
      low_freq_factor: original length over the wavelength from which on that is done in full.
      high_freq_factor: original length over the wavelength up to which nothing is done; above the low one.
      original_length: of the context before it was made longer, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """A decoder of Qwen2's kind; `vision=None` is a text-only policy. `qwen2_vl/README.md` lists what each family sets.

    Attributes:
      attention_bias: whether q, k and v have biases, as in Qwen2 (o has none in any family here).
      query_key_norm: an RMSNorm over the head_dim numbers of each query and key before they are rotated, as in Qwen3.
      rotary_axes: which position (0 time, 1 row, 2 column) each of the head_dim / 2 rotary frequency pairs turns
        with; all 0 is plain rotary embedding. See `sectioned_axes`, `interleaved_axes` and `interleaved_sections`.
      rope_scaling: how the rotary frequencies were made slower, None where they were not.
      token_mixing_width: how many preceding tokens are mixed into each embedding by a learnt linear map; 0 for
        every Hugging Face model. Small policies trained from scratch learn to look values up with it.
      embedding_scale: factor on the input embeddings (1 for Hugging Face models).
      dtype: dtype of activations; norms, softmax and log-probs are at least float32.
      param_dtype: dtype in which weights are stored.
      remat: what the backward pass recomputes: "full" each layer, "dots" all but the products with weights, "none"
        nothing.
      attention: how a whole sequence attends to itself, see `attention.self_attention`.
      lora_alpha: numerator of the decoder adapter's scale alpha / rank (Hu et al. 2021).
      lora_dropout: share of an adapter's inputs that training sets to zero.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = True
    query_key_norm: bool = False
    rotary_axes: tuple[int, ...] = ()
    rope_scaling: Llama3Rope | None = None
    vision: VisionConfig | None = None
    token_mixing_width: int = 0
    embedding_scale: float = 1.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: RematPolicy = "full"
    attention: AttentionBackend = "xla"
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be a multiple of num_key_value_heads ({self.num_key_value_heads})"
            )
        if not self.rotary_axes:
            object.__setattr__(self, "rotary_axes", (0,) * (self.head_dim // 2))
        if len(self.rotary_axes) != self.head_dim // 2:
            raise ValueError(f"rotary_axes has {len(self.rotary_axes)} entries, head_dim / 2 is {self.head_dim // 2}")
        if len(self.deepstack_blocks) > self.num_layers:
            raise ValueError(f"{len(self.deepstack_blocks)} DeepStack features, but {self.num_layers} decoder layers")

    @property
    def deepstack_blocks(self) -> tuple[int, ...]:
        """Those of the vision tower; () without one."""
        return () if self.vision is None else self.vision.deepstack_blocks


def sectioned_axes(sections: tuple[int, int, int]) -> tuple[int, ...]:
    """Contiguous runs of pairs for time, row and column, as in Qwen2-VL (arXiv 2409.12191, section 2.1)."""
    return tuple(axis for axis, pairs in enumerate(sections) for _ in range(pairs))


def interleaved_axes(pairs: int) -> tuple[int, ...]:
    """Pairs dealt out in turn, as in Qwen3-VL: a small head then sees rows and columns at high frequencies too."""
    return tuple(pair % 3 for pair in range(pairs))


def interleaved_sections(sections: tuple[int, int, int]) -> tuple[int, ...]:
    """So many pairs for time, row and column, dealt out in turn; time gets what is left, as in Qwen3-VL.

    Raises:
      ValueError: a row's or a column's last turn would come after the last pair.
    """
    axes = [0] * sum(sections)
    for axis in (1, 2):
        for turn in range(sections[axis]):
            if 3 * turn + axis >= len(axes):
                raise ValueError(f"mrope_section {list(sections)} cannot be dealt out in turn")
            axes[3 * turn + axis] = axis
    return tuple(axes)


def tiny(vocab_size: int, *, hidden_size: int = 128, num_layers: int = 4, images: bool = True) -> PolicyConfig:
    """A policy of one to three million parameters that trains from scratch on a CPU in minutes."""
    vision = VisionConfig(
        depth=2, embed_dim=64, num_heads=2, intermediate_size=128, temporal_patch_size=1, learned_grid=16
    )
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 5 // 2,
        num_layers=num_layers,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=hidden_size // 4,
        rope_theta=10_000.0,
        rotary_axes=interleaved_axes(hidden_size // 8),
        vision=vision if images else None,
        token_mixing_width=3,
        embedding_scale=hidden_size**0.5 / 2,
        remat="none",
    )
