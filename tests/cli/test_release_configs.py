"""The two configs of the authors' release have its numbers, and put its adapters where it puts them."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import traverse_util

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.config.checks import check_config
from regrpo_jax.config.command_line import field_values, load_config
from regrpo_jax.models.huggingface import param_shapes
from regrpo_jax.models.lora import init_adapter
from regrpo_jax.models.qwen2_vl.hf_config import read_config
from regrpo_jax.run.model_defaults import with_model_defaults
from regrpo_jax.training.optimizer import learning_rate_schedule
from regrpo_jax.training.state import adapter_settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHARED = {
    "data.conditioning": "release",  # every candidate directly after the context
    "data.train_end_of_turn": False,
    "lora.dropout": 0.05,
    "lora.vision_rank": 0,
    "lora.last_layers": 0,
    "sft.trainable": "lora",
    "sft.clean_ratio": 0.5,
    "sft.learning_rate": 2e-5,
    "sft.warmup_steps": 0,
    "sft.beta2": 0.999,  # of torch's AdamW, as the decay of the second stage
    "rl.beta2": 0.999,
    "rl.weight_decay": 0.01,
    "rl.trainable": "lora",
    "rl.groups_per_batch": 1,
    "rl.lambda_exec": 1.0,
    "rl.eta": 0.1,
    "rl.lambda_val": 0.0,
    "rl.kl_estimator": "k1",
    "rl.baseline": "mean",
    "rl.zero_variance": "skip",
    "rl.two_stream_alpha": None,
}
VISION = SHARED | {
    "data.pixels": (4 * 28 * 28, 768 * 28 * 28),
    "sft.row_length": 8192,
    "lora.rank": 128,
    "lora.alpha": 16.0,
    "lora.targets": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "sft.batch_rows": 8,
    "sft.weight_decay": 0.0,
    "sft.clip_norm": 1.0,
    "rl.steps": 250,
    "rl.learning_rate": 1e-6,
    "rl.beta": 0.3,
    "rl.warmup_steps": 10,
    "rl.clip_norm": 1.0,
    "rl.length_normalize": True,
    "rl.normalize_advantages": True,
    "rl.advantage_clip": 1.0,
}
TEXT = SHARED | {
    "sft.row_length": 4096,
    "lora.rank": 16,
    "lora.alpha": 32.0,
    "lora.targets": ("q_proj", "v_proj"),
    "sft.steps": 2000,
    "sft.batch_rows": 1,
    "sft.weight_decay": 0.01,
    "rl.steps": 1000,
    "rl.learning_rate": 5e-6,
    "rl.beta": 0.04,
    "rl.warmup_steps": 0,
    "rl.length_normalize": False,
    "rl.normalize_advantages": False,
    "rl.advantage_clip": None,
}


@pytest.mark.parametrize(("name", "numbers"), [("release_vision", VISION), ("release_text", TEXT)])
def test_numbers_of_the_release(name: str, numbers: dict[str, Any]) -> None:
    config = load_config(CONFIGS / f"{name}.py")
    check_config(config)
    assert tuple(config.stages[:2]) == ("sft", "rl")
    values = field_values(config)
    for stage in ("sft", "rl"):
        values |= {f"{stage}.{field}": value for field, value in stage_section(config, stage).items()}
    assert {field: values[field] for field in numbers} == numbers


@pytest.mark.parametrize(
    ("name", "model", "adapted", "parameters"),
    [
        # rank times (inputs + outputs): of q, o with 3584 and 3584, of k, v with 3584 and 512, in 28 layers
        ("release_vision", "Qwen2-VL-7B", {"q_proj", "k_proj", "v_proj", "o_proj"}, 128 * 28 * 2 * (7168 + 4096)),
        # of q with 896 and 896, of v with 896 and 128, in 24 layers
        ("release_text", "Qwen2.5-0.5B", {"q_proj", "v_proj"}, 16 * 24 * (1792 + 1024)),
    ],
)
def test_the_adapter_is_on_the_decoder_alone(
    tmp_path: Path, published: dict[str, Any], name: str, model: str, adapted: set[str], parameters: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published[model].description))
    policy = read_config(tmp_path / "config.json")
    params = traverse_util.unflatten_dict(param_shapes(policy), sep="/")
    settings = adapter_settings(load_config(CONFIGS / f"{name}.py").lora)
    adapter = jax.eval_shape(lambda: init_adapter(jax.random.key(0), params, settings))
    flat = traverse_util.flatten_dict(adapter, sep="/")
    assert {path.rsplit("/", 1)[0] for path in flat} == {f"layers/{target}" for target in adapted}
    assert sum(math.prod(array.shape) for array in flat.values()) == parameters


@pytest.mark.parametrize(
    ("name", "stage", "rates"),
    [
        ("release_vision", "sft", (2e-5, 1e-5, 0.0)),
        ("release_vision", "rl", (0.0, 1e-6, 1e-6)),
        ("release_text", "sft", (2e-5, 2e-5, 2e-5)),
        ("release_text", "rl", (5e-6, 5e-6, 5e-6)),
    ],
)
def test_learning_rates_at_the_first_the_middle_and_the_last_update(
    name: str, stage: str, rates: tuple[float, ...]
) -> None:
    chosen = stage_section(load_config(CONFIGS / f"{name}.py"), stage)
    schedule = learning_rate_schedule(chosen, steps=chosen.steps)
    found = [float(schedule(step)) for step in (0, chosen.steps // 2, chosen.steps)]
    assert found == pytest.approx(rates, rel=1e-5, abs=1e-12)


def test_nothing_is_left_to_the_size_of_the_model_where_the_release_says_it() -> None:
    vision, text = (field_values(load_config(CONFIGS / f"release_{name}.py")) for name in ("vision", "text"))
    for field, values in {
        "model.dtype": ("bfloat16", "float32"),
        "model.param_dtype": ("bfloat16", "float32"),
        "model.remat": ("full", "full"),
    }.items():
        assert (vision[field], text[field]) == values


def test_the_values_stand_whatever_the_model_is() -> None:
    config = load_config(CONFIGS / "release_vision.py")  # without a path the model is the tiny preset
    assert field_values(with_model_defaults(config)) == field_values(config)
