"""Sizes of a policy, as plain frozen dataclasses that jit can hash; the `tiny` preset lives here too."""

import dataclasses
from typing import Literal

RematPolicy = Literal["none", "full"]


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A Qwen2-VL vision tower (names and defaults follow `Qwen2VLVisionConfig` of transformers)."""

    depth: int
    embed_dim: int
    num_heads: int
    mlp_ratio: float = 4.0
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch: channels * frames * height * width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """A Qwen2-style decoder; `vision=None` is a text-only policy.

    Attributes:
      mrope_sections: rotary frequency pairs given to (time, row, column), summing to head_dim / 2; None is
        plain one-dimensional rotary position embedding (Qwen2 text).
      token_mixing_width: how many preceding tokens are mixed into each embedding by a learnt linear map; 0 for
        every Hugging Face model. Small policies trained from scratch learn to look values up with it.
      embedding_scale: factor on the input embeddings (1 for Hugging Face models).
      dtype: dtype of activations; norms, softmax and log-probs are at least float32.
      param_dtype: dtype in which weights are stored.
      remat: "full" recomputes each layer in the backward pass, "none" keeps its activations.
      lora_alpha: numerator of the adapter's scale alpha / rank (Hu et al. 2021).
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
    mrope_sections: tuple[int, int, int] | None = None
    vision: VisionConfig | None = None
    token_mixing_width: int = 0
    embedding_scale: float = 1.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: RematPolicy = "full"
    lora_alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be a multiple of num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.mrope_sections is not None and 2 * sum(self.mrope_sections) != self.head_dim:
            raise ValueError(f"mrope_sections {self.mrope_sections} must sum to head_dim / 2 = {self.head_dim // 2}")


def tiny(vocab_size: int, *, hidden_size: int = 128, num_layers: int = 4, images: bool = True) -> PolicyConfig:
    """A policy of one to three million parameters that trains from scratch on a CPU in minutes."""
    vision = VisionConfig(depth=2, embed_dim=64, num_heads=2, mlp_ratio=2.0, temporal_patch_size=1)
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 5 // 2,
        num_layers=num_layers,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=hidden_size // 4,
        rope_theta=10_000.0,
        mrope_sections=(hidden_size // 32, hidden_size // 32, hidden_size // 16),
        vision=vision if images else None,
        token_mixing_width=3,
        embedding_scale=hidden_size**0.5 / 2,
        remat="none",
    )
