"""A run from a Qwen2-VL or Qwen3-VL directory with pictures, as `--config.model.path` starts it; without torch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from regrpo_jax.config.command_line import load_config
from regrpo_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from regrpo_jax.errors import UserError
from regrpo_jax.main import run_config
from regrpo_jax.models.config import PolicyConfig, VisionConfig, interleaved_sections, sectioned_axes
from regrpo_jax.models.huggingface import load_policy, save_policy
from regrpo_jax.models.policy import policy_functions
from tests.compact_records import PICTURED, CorpusPaths

TINY = Path(__file__).parents[1] / "tiny_config.py"
VISION = VisionConfig(depth=2, embed_dim=16, num_heads=2, intermediate_size=32)
THIRD = dataclasses.replace(
    VISION, patch_size=16, activation="gelu_tanh", patch_bias=True, interpolated_grid=4, deepstack_blocks=(0,)
)
DECODERS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"rotary_axes": sectioned_axes((1, 1, 2)), "vision": VISION},
    "qwen3_vl": {
        "rotary_axes": interleaved_sections((2, 1, 1)),
        "vision": THIRD,
        "attention_bias": False,
        "query_key_norm": True,
    },
}


@pytest.fixture(scope="module")
def corpus() -> CorpusPaths:
    return PICTURED


@pytest.fixture(scope="module", params=DECODERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: CorpusPaths) -> Path:
    """A directory as Hugging Face writes it, with random weights."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([corpus.rot_train.read_text(), "system\nuser\nassistant\n"], vocab_size=600)
    config = PolicyConfig(
        vocab_size=len(tokenizer) + 7,  # published models have more rows than tokens
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        **DECODERS[request.param],
    )
    params = jax.jit(policy_functions(config).init)(jax.random.key(0))["params"]
    save_policy(folder, config, params, token_ids={"image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)})
    tokenizer.save_pretrained(folder)
    return folder


def settings(corpus: CorpusPaths, model: Path) -> Any:
    config = load_config(TINY)
    config.stages = ("sft", "rl", "eval")
    config.data.rot, config.data.clean, config.data.eval_rot = map(
        str, (corpus.rot_train, corpus.clean_train, corpus.rot_test)
    )
    config.model.path = str(model)
    config.model.remat = "dots"
    config.lora.vision_rank = 3
    config.lora.dropout = 0.1
    config.optimizer.trainable = "lora"
    config.sft.row_length = 512
    config.data.prefix_buckets, config.data.branch_buckets = (512,), (256,)
    config.sft.steps = config.rl.steps = config.checkpoint.every = config.log_every = 2
    config.export_weights = True
    return config


def test_from_a_directory_to_an_adapter_and_full_weights(tmp_path: Path, corpus: CorpusPaths, model: Path) -> None:
    config = settings(corpus, model)
    if "text_config" in json.loads((model / "config.json").read_text()):  # Qwen3-VL, of which one stage is enough
        config.stages = ("sft",)
    run_config(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {*config.stages}
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert any("visual" in name for name in described["target_modules"])
    (before, old), (after, new) = load_policy(model), load_policy(tmp_path / "model")
    assert before == after
    assert np.any(new["layers"]["q_proj"]["kernel"] != old["layers"]["q_proj"]["kernel"])
    np.testing.assert_array_equal(new["layers"]["up_proj"]["kernel"], old["layers"]["up_proj"]["kernel"])
    assert (tmp_path / "model" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda config: {"image_token_id": 5000}, r"config\.json.*image_token_id"),
        (lambda config: {"vision_config": config["vision_config"] | {"patch_size": 12}}, r"shape"),
    ],
)
def test_a_directory_whose_files_disagree_is_refused_before_anything_is_trained(
    tmp_path: Path, corpus: CorpusPaths, model: Path, break_it: Any, message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | break_it(described)))
    with pytest.raises(UserError, match=message):
        run_config(settings(corpus, folder), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
