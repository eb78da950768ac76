"""Names and shapes of every tensor of the published sizes, against transformers' own models without memory."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    LlamaForCausalLM,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2ForCausalLM,
    Qwen2VLForConditionalGeneration,
    Qwen3ForCausalLM,
    Qwen3VLForConditionalGeneration,
)

from regrpo_jax.models.huggingface import param_shapes, tensor_places, tensor_shape
from regrpo_jax.models.qwen2_vl.hf_config import parse_config
from regrpo_jax.models.qwen2_vl.weights import canonical_name, is_redundant, written_name

CLASSES: dict[str, Any] = {
    "llama": LlamaForCausalLM,
    "qwen2": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
    "qwen2_vl": Qwen2VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}
SEEING = ("Qwen2-VL-2B", "Qwen2-VL-7B", "Qwen2-VL-72B", "Qwen2.5-VL-7B", "Qwen3-VL-2B", "Qwen3-VL-8B")
TEXT = ("Qwen2.5-0.5B", "Qwen3-0.6B", "Qwen3-8B", "SmolLM2-135M", "TinyLlama-1.1B")


@pytest.mark.parametrize("model", SEEING + TEXT)
def test_every_tensor_of_the_published_model_has_its_name_and_shape(published: dict[str, Any], model: str) -> None:
    description = published[model].description
    family = description["model_type"]
    with torch.device("meta"):
        theirs = CLASSES[family](AutoConfig.for_model(**description))
    config = parse_config(description)
    shapes = param_shapes(config)
    ours = {
        name: tensor_shape(path, shapes[path].shape[0 if layer is None else 1 :], config)
        for name, (path, layer) in tensor_places(config, shapes).items()
    }
    wanted = {canonical_name(name): tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert ours == {name: shape for name, shape in wanted.items() if not is_redundant(name, config)}
    if family == "qwen3_vl":  # whose published names are those of today
        assert {written_name(name, config) for name in ours} == theirs.state_dict().keys() - (
            {"lm_head.weight"} if config.tie_word_embeddings else set()
        )
    assert sum(parameter.numel() for parameter in theirs.parameters()) == published[model].parameters
