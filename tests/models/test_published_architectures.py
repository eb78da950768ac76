"""The published sizes, as shapes alone: parameter counts and tensor names, without any weight."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import pytest

from regrpo_jax.models.huggingface import param_shapes, tensor_places, tensor_shape
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.qwen2_vl.hf_config import read_config

QWEN3_VL = ("Qwen3-VL-2B", "Qwen3-VL-4B", "Qwen3-VL-8B", "Qwen3-VL-32B")
SEEING = ("Qwen2-VL-2B", "Qwen2-VL-7B", "Qwen2-VL-72B", "Qwen2.5-VL-3B", "Qwen2.5-VL-7B", *QWEN3_VL)
TEXT = ("Qwen2-7B", "Qwen2.5-0.5B", "Qwen3-0.6B", "Qwen3-8B", "SmolLM2-135M", "TinyLlama-1.1B")


@pytest.mark.parametrize("model", SEEING + TEXT)
def test_parameter_and_tensor_counts(tmp_path: Path, published: dict[str, Any], model: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(published[model].description))
    config = read_config(path, param_dtype="bfloat16")
    shapes = param_shapes(config)
    assert {str(shape.dtype) for shape in shapes.values()} == {"bfloat16"}
    assert sum(math.prod(shape.shape) for shape in shapes.values()) == published[model].parameters
    places = tensor_places(config, shapes)
    assert len(places) == published[model].tensors
    stored = sum(
        math.prod(tensor_shape(our, shapes[our].shape[0 if layer is None else 1 :], config))
        for our, layer in places.values()
    )
    assert stored == published[model].parameters


@pytest.mark.parametrize("model", ("Qwen2-VL-7B", "Qwen2-VL-72B", "Qwen2.5-VL-7B", "Qwen3-VL-8B"))
def test_a_prompt_with_images_goes_through_the_full_size(tmp_path: Path, published: dict[str, Any], model: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(published[model].description))
    config = read_config(path, dtype="bfloat16", param_dtype="bfloat16")
    functions = policy_functions(config)

    def integers(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, "int32")

    block = TokenBlock(integers(2, 512), integers(2, 512), integers(2, 512, 3), integers(2, 512))
    assert config.vision is not None
    patches = jax.ShapeDtypeStruct((2, 1024, config.vision.patch_dim), "float32")
    images = ImagePatches(patches, integers(2, 1024), integers(2, 1024, 2), integers(2, 1024))
    variables = jax.eval_shape(functions.init, jax.random.key(0))
    hidden, cache = jax.eval_shape(functions.run_prefix, variables, block, images)
    assert (hidden.shape, str(hidden.dtype)) == ((2, 512, config.hidden_size), "bfloat16")
    assert cache.keys.shape == (config.num_layers, 2, 512, config.num_key_value_heads, 128)
