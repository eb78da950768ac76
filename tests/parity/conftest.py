"""One random model in two frameworks: transformers makes and saves it, we load what it saved."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from regrpo_jax.data.batches import collate_images
from regrpo_jax.data.images import PackedImages, PatchedImage, pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.huggingface import load_policy
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.policy import PolicyFunctions, policy_functions

VOCABULARY, IMAGE_TOKEN, PAD = 40, 38, 0
SECTIONS = [1, 1, 2]  # M-RoPE's frequency pairs for time, row and column; a head has 8 dimensions
PATCH, MERGE = 4, 2
Variables = dict[str, Any]
# Of the four frequencies of a head the first stays, the second lies between, the others are divided in full.
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 5_000.0, "factor": 4.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
TEXT_MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "llama3": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3_ROPE}),  # Llama 3.1 and later
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 12}),  # heads are wider together than the hidden states
}
Sample = Sequence[int | tuple[int, int]]  # so many text tokens, or an image of (rows, columns) image tokens


def text_sizes(*, heads: int, key_value_heads: int) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 8 * heads,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "max_position_embeddings": 256,
        "initializer_range": 0.3 * (4 / heads) ** 0.5,  # activations of one size, whatever the width
        "rms_norm_eps": 1e-5,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": PAD,
    }


def make_theirs(family: str, *, heads: int, key_value_heads: int, tied: bool) -> PreTrainedModel:
    """A tiny model of transformers, all of its weights random."""
    torch.manual_seed(heads + tied)
    text = text_sizes(heads=heads, key_value_heads=key_value_heads)
    rope = {"rope_type": "default", "rope_theta": 5_000.0}
    shared = {"depth": 3, "num_heads": 2, "patch_size": PATCH, "initializer_range": 0.3}
    model: PreTrainedModel
    if family in TEXT_MODELS:
        kind, configuration, sizes = TEXT_MODELS[family]
        model = kind(configuration(**{"rope_parameters": rope} | text | sizes, tie_word_embeddings=tied))
    elif family == "qwen2_vl":
        vision = shared | {"embed_dim": 32, "hidden_size": 8 * heads, "mlp_ratio": 2}
        config = Qwen2VLConfig(
            text_config=text | {"rope_parameters": rope | {"mrope_section": SECTIONS}},
            vision_config=vision,
            image_token_id=IMAGE_TOKEN,
            video_token_id=VOCABULARY - 1,
            tie_word_embeddings=tied,
        )
        model = Qwen2VLForConditionalGeneration(config)
    elif family == "qwen3_vl":
        # Heads of another width than hidden / heads; a grid of 5 x 5 points, for images of 2 to 10 patches a side.
        rotary = {"mrope_section": [3, 2, 1], "mrope_interleaved": True}
        deepstack = {"num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1]}
        vision = shared | deepstack | {"hidden_size": 32, "out_hidden_size": 8 * heads, "intermediate_size": 40}
        config = Qwen3VLConfig(
            text_config=text | {"head_dim": 12, "num_hidden_layers": 3, "rope_parameters": rope | rotary},
            vision_config=vision,
            image_token_id=IMAGE_TOKEN,
            video_token_id=VOCABULARY - 1,
            tie_word_embeddings=tied,
        )
        model = Qwen3VLForConditionalGeneration(config)
    else:
        # Windows of 4 x 4 patches, so that the images of the tests have several, some of them cut off at an edge.
        windows = {"window_size": 4 * PATCH, "fullatt_block_indexes": [1]}
        vision = shared | windows | {"hidden_size": 32, "out_hidden_size": 8 * heads, "intermediate_size": 40}
        config = Qwen2_5_VLConfig(
            text_config=text | {"rope_parameters": rope | {"mrope_section": SECTIONS}},
            vision_config=vision,
            image_token_id=IMAGE_TOKEN,
            video_token_id=VOCABULARY - 1,
            tie_word_embeddings=tied,
        )
        model = Qwen2_5_VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        # transformers starts biases at 0 and norms at 1, which would hide mistakes.
        is_norm = parameter.ndim == 1 and name.endswith("weight")
        if parameter.ndim == 1 or "visual" in name:
            torch.nn.init.normal_(parameter, mean=1.0 if is_norm else 0.0, std=0.2)
    return model.eval()


@dataclasses.dataclass(frozen=True)
class Batch:
    """The same samples for both: padded on the left, images packed per row for us and over all rows for them."""

    block: TokenBlock  # [row, token]
    images: ImagePatches | None
    grids: tuple[tuple[tuple[int, int], ...], ...]  # per row

    @property
    def valid(self) -> np.ndarray:
        """Tokens that are no padding.  # [row, token]"""
        return np.asarray(self.block.segment_ids) > 0

    def theirs(self) -> dict[str, torch.Tensor]:
        """Arguments for a model of transformers."""
        tokens = torch.tensor(self.block.tokens, dtype=torch.long)
        arguments = {"input_ids": tokens, "attention_mask": torch.tensor(self.valid.astype(np.int64))}
        if self.images is not None:
            kept = np.asarray(self.images.segment_ids) > 0
            arguments["pixel_values"] = torch.tensor(np.asarray(self.images.patches)[kept])
            grids = [(1, MERGE * rows, MERGE * columns) for row in self.grids for rows, columns in row]
            arguments["image_grid_thw"] = torch.tensor(grids)
            arguments["mm_token_type_ids"] = (tokens == IMAGE_TOKEN).int()
        return arguments

    @classmethod
    def stored(cls, case: dict[str, np.ndarray]) -> "Batch":
        """The batch of a golden."""
        parts: dict[str, dict[str, np.ndarray]] = {"block": {}, "images": {}}
        for name, array in case.items():
            kind, _, field = name.partition("/")
            if kind in parts:
                parts[kind][field] = array
        images = ImagePatches(**parts["images"]) if parts["images"] else None
        grids: list[tuple[tuple[int, int], ...]] = []
        for row, ids in enumerate([] if images is None else images.segment_ids):
            places = [images.positions[row][ids == image] for image in range(1, ids.max() + 1)]
            grids.append(tuple(tuple((place.max(axis=0) + 1) // MERGE) for place in places))
        return cls(TokenBlock(**parts["block"]), images, tuple(grids))

    def last_row(self) -> "Batch":
        """The last sample alone, without padding."""
        own = slice(int(np.argmax(self.valid[-1])), None)
        block = jax.tree.map(lambda array: array[-1:, own], self.block)
        images = None if self.images is None else jax.tree.map(lambda array: array[-1:], self.images)
        return Batch(block, images, self.grids[-1:])


def their_loss(logits: torch.Tensor, arguments: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of the next text token, spelt out."""
    tokens, mask = arguments["input_ids"], arguments["attention_mask"]
    logprobs = torch.log_softmax(logits[:, :-1], dim=-1)
    chosen = logprobs.gather(-1, tokens[:, 1:, None])[..., 0]
    scored = (mask[:, :-1] > 0) & (tokens[:, 1:] != IMAGE_TOKEN)
    return -chosen[scored].mean()


def make_image(grid: tuple[int, int], random: np.random.Generator) -> PatchedImage:
    """An image of noise; the patches of one merge group are neighbours."""
    places = [
        (MERGE * row + i, MERGE * column + j)
        for row in range(grid[0])
        for column in range(grid[1])
        for i in range(MERGE)
        for j in range(MERGE)
    ]
    patches = random.normal(size=(len(places), 3 * 2 * PATCH * PATCH)).astype(np.float32)
    return PatchedImage(patches, np.array(places, np.int32), grid)


def make_batch(functions: PolicyFunctions, samples: Sequence[Sample], seed: int = 0) -> Batch:
    """Random text and images."""
    random = np.random.default_rng(seed)
    rows: list[tuple[np.ndarray, PackedImages]] = []
    for sample in samples:
        grids = [piece for piece in sample if isinstance(piece, tuple)]
        pieces = [
            np.full(piece[0] * piece[1], IMAGE_TOKEN)
            if isinstance(piece, tuple)
            else random.integers(1, IMAGE_TOKEN, piece)
            for piece in sample
        ]
        images = pack_images([make_image(grid, random) for grid in grids], functions.config.vision)
        rows.append((np.concatenate(pieces).astype(np.int32), images))
    shape = (len(rows), max(len(tokens) for tokens, _ in rows))
    tokens, valid = np.full(shape, PAD, np.int32), np.zeros(shape, np.int32)
    positions, image_index = np.zeros((*shape, 3), np.int32), np.full(shape, -1, np.int32)
    for row, (own, images) in enumerate(rows):
        here = (row, slice(shape[1] - len(own), None))
        tokens[here], valid[here], image_index[here] = own, 1, images.image_index(own == IMAGE_TOKEN)
        positions[here] = rotary_positions(own == IMAGE_TOKEN, images.merged_grids)
    block = TokenBlock(tokens, valid, positions, image_index)
    patches = collate_images([images for _, images in rows])
    return Batch(block, patches, tuple(images.merged_grids for _, images in rows))


class Twins:
    """One model in both frameworks, ours loaded from the directory that transformers wrote."""

    def __init__(self, folder: Path, family: str, *, heads: int, key_value_heads: int, tied: bool) -> None:
        self.theirs: Any = make_theirs(family, heads=heads, key_value_heads=key_value_heads, tied=tied)
        self.folder = folder
        self.theirs.save_pretrained(folder)
        self.config, params = load_policy(folder, remat="none")
        self.functions = policy_functions(self.config)
        self.variables: Variables = {"params": params}

        def logits(variables: Variables, block: TokenBlock, images: ImagePatches | None) -> jax.Array:
            hidden, _ = self.functions.run_prefix(variables, block, images)
            return hidden @ self.functions.head(variables).T

        def loss(variables: Variables, block: TokenBlock, images: ImagePatches | None) -> tuple[jax.Array, jax.Array]:
            """Mean cross-entropy of the next text token, and the logits.  # [row, token, vocab]"""
            scores = logits(variables, block, images)
            logprobs = jax.nn.log_softmax(scores[:, :-1])
            chosen = jnp.take_along_axis(logprobs, block.tokens[:, 1:, None], axis=-1)[..., 0]
            scored = (block.segment_ids[:, :-1] > 0) & (block.tokens[:, 1:] != IMAGE_TOKEN)
            return -jnp.sum(jnp.where(scored, chosen, 0)) / jnp.sum(scored), scores

        self.their_loss = their_loss
        self.logits = jax.jit(logits)
        self.value_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def batch(self, *samples: Sample, seed: int = 0) -> Batch:
        return make_batch(self.functions, samples, seed)


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Twins]:
    """(family, heads, key_value_heads, tied) -> the twins of these sizes, made once."""

    @functools.cache
    def make(family: str, heads: int = 4, key_value_heads: int = 2, tied: bool = False) -> Twins:
        folder = tmp_path_factory.mktemp(family)
        return Twins(folder, family, heads=heads, key_value_heads=key_value_heads, tied=tied)

    return make
