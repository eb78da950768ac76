"""Qwen2-VL against transformers: patches, vision features, M-RoPE positions, and logits of a prompt with images."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from regrpo_jax.data.batches import collate_images, image_indices
from regrpo_jax.data.images import PatchedImage, load_image, pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.config import PolicyConfig, VisionConfig, sectioned_axes
from regrpo_jax.models.huggingface import load_text_policy
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.qwen2_vl.vision import VisionTower

TOLERANCE = 2e-4
IMAGE_TOKEN = 30
GRIDS = ((2, 3), (3, 1))  # merged rows and columns of the two images
SECTIONS = (1, 1, 2)
VISION = VisionConfig(depth=3, embed_dim=32, num_heads=2, intermediate_size=64, patch_size=4)
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def theirs() -> Qwen2VLForConditionalGeneration:
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": 32,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0, "mrope_section": list(SECTIONS)},
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={
            "depth": VISION.depth,
            "embed_dim": VISION.embed_dim,
            "hidden_size": 32,
            "mlp_ratio": 2,
            "num_heads": VISION.num_heads,
            "patch_size": VISION.patch_size,
            "initializer_range": 0.3,
        },
        image_token_id=IMAGE_TOKEN,
        video_token_id=31,
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        # transformers starts biases at 0 and norms at 1, which would hide mistakes.
        is_norm_scale = parameter.ndim == 1 and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm_scale else 0.0, std=0.2)
    return model


@pytest.fixture(scope="module")
def image_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    unit = VISION.patch_size * VISION.spatial_merge_size
    paths = []
    for index, (rows, columns) in enumerate(GRIDS):
        pixels = random.integers(0, 256, (rows * unit, columns * unit, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def images(image_paths: list[Path]) -> list[PatchedImage]:
    return [load_image(path, VISION, max_pixels=10_000) for path in image_paths]


@pytest.fixture(scope="module")
def processed(image_paths: list[Path]) -> dict[str, torch.Tensor]:
    """The images as transformers' own processor cuts them."""
    processor = Qwen2VLImageProcessorPil(patch_size=VISION.patch_size, do_resize=False)
    opened: list[Image.Image] = [Image.open(path) for path in image_paths]
    return dict(processor(opened, return_tensors="pt"))


def packed(images: list[PatchedImage]) -> ImagePatches:
    """Both images in one row, padded as in training."""
    row = pack_images(images, VISION)
    patches = collate_images([row])
    assert patches is not None
    return patches


def vision_params(model: Qwen2VLForConditionalGeneration) -> Tree:
    """Their tower's weights in our layout, by hand: kernels [in_features, out_features], blocks stacked."""
    weights = {name: tensor.detach().numpy() for name, tensor in model.model.visual.state_dict().items()}

    def linear(name: str) -> Tree:
        return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}

    def norm(name: str) -> Tree:
        return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}

    blocks = [
        {
            "norm1": norm(f"blocks.{layer}.norm1"),
            "norm2": norm(f"blocks.{layer}.norm2"),
            "qkv": linear(f"blocks.{layer}.attn.qkv"),
            "proj": linear(f"blocks.{layer}.attn.proj"),
            "fc1": linear(f"blocks.{layer}.mlp.fc1"),
            "fc2": linear(f"blocks.{layer}.mlp.fc2"),
        }
        for layer in range(VISION.depth)
    ]
    return {
        "patch_embed": {"kernel": weights["patch_embed.proj.weight"].reshape(VISION.embed_dim, -1).T},
        "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
        "merger_norm": norm("merger.ln_q"),
        "merger_fc1": linear("merger.mlp.0"),
        "merger_fc2": linear("merger.mlp.2"),
    }


def our_policy(model: Qwen2VLForConditionalGeneration, folder: Path) -> tuple[PolicyConfig, Tree]:
    """Their decoder read as a Qwen2 text model, with M-RoPE and the tower added."""
    tensors = {
        name.replace("model.language_model.", "model."): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if ".visual." not in name
    }
    text = model.model.language_model.config.to_dict() | {"model_type": "qwen2", "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(text))
    save_file(tensors, folder / "model.safetensors")
    config, params = load_text_policy(folder, dtype="float32", param_dtype="float32", remat="none", lora_alpha=1.0)
    config = dataclasses.replace(config, vision=VISION, rotary_axes=sectioned_axes(SECTIONS))
    return config, params | {"vision": vision_params(model)}


def prompt_tokens() -> np.ndarray:
    """Text, the two images with a word between them, text.  # [1, token]"""
    random = np.random.default_rng(1)
    pieces = [random.integers(0, 29, 4)]
    for rows, columns in GRIDS:
        pieces += [np.full(rows * columns, IMAGE_TOKEN), random.integers(0, 29, 2)]
    return np.concatenate([*pieces, random.integers(0, 29, 3)]).astype(np.int32)[None]


def their_positions(
    model: Qwen2VLForConditionalGeneration, tokens: np.ndarray, grids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token types (1 at image tokens), and positions [3, 1, token]."""
    ids = torch.tensor(tokens, dtype=torch.long)
    types = (ids == IMAGE_TOKEN).int()
    return types, model.model.get_rope_index(ids, types, image_grid_thw=grids)[0]


def test_patches_are_those_of_their_image_processor(
    images: list[PatchedImage], processed: dict[str, torch.Tensor]
) -> None:
    ours = np.concatenate([image.patches for image in images])
    np.testing.assert_allclose(ours, processed["pixel_values"].numpy(), atol=1e-5)
    grids = [[1, 2 * image.merged_grid[0], 2 * image.merged_grid[1]] for image in images]
    assert processed["image_grid_thw"].tolist() == grids
    assert [image.merged_grid for image in images] == list(GRIDS)


def test_vision_features(
    theirs: Qwen2VLForConditionalGeneration, images: list[PatchedImage], processed: dict[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        tower = theirs.model.visual
        expected = tower(processed["pixel_values"], grid_thw=processed["image_grid_thw"]).pooler_output.numpy()
    config = PolicyConfig(32, 32, 48, 2, 4, 2, 8, vision=VISION, remat="none")
    features = compiled(VisionTower(config).apply)({"params": vision_params(theirs)}, packed(images))
    count = sum(image.num_tokens for image in images)
    assert expected.shape == (count, 32)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(features[0, :count], expected, atol=TOLERANCE)


def test_positions(theirs: Qwen2VLForConditionalGeneration, processed: dict[str, torch.Tensor]) -> None:
    tokens = prompt_tokens()
    _, expected = their_positions(theirs, tokens, processed["image_grid_thw"])
    ours = rotary_positions(tokens[0] == IMAGE_TOKEN, GRIDS)
    np.testing.assert_array_equal(ours, expected[:, 0].T.numpy())


def test_logits_of_a_prompt_with_images(
    theirs: Qwen2VLForConditionalGeneration,
    images: list[PatchedImage],
    processed: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    tokens = prompt_tokens()
    types, positions = their_positions(theirs, tokens, processed["image_grid_thw"])
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            mm_token_type_ids=types,
            position_ids=positions,
            pixel_values=processed["pixel_values"],
            image_grid_thw=processed["image_grid_thw"],
        ).logits.numpy()
    config, params = our_policy(theirs, tmp_path)
    functions = policy_functions(config)
    is_image = tokens == IMAGE_TOKEN
    block = TokenBlock(
        tokens, np.ones_like(tokens), rotary_positions(is_image[0], GRIDS)[None], image_indices(is_image)
    )

    def logits(params: Tree, block: TokenBlock, patches: ImagePatches) -> jax.Array:
        hidden, _ = functions.run_prefix({"params": params}, block, patches)
        return hidden @ functions.head({"params": params}).T

    np.testing.assert_allclose(compiled(logits)(params, block, packed(images)), expected, atol=TOLERANCE)
