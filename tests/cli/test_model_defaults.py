"""What "auto" becomes: decided by the size of the model, never against a value that was set, and told."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.config.base_config import base_config, declared
from regrpo_jax.config.command_line import field_values
from regrpo_jax.config.fields import declared_fields
from regrpo_jax.errors import UserError
from regrpo_jax.main import main
from regrpo_jax.models.config import PolicyConfig, VisionConfig, tiny
from regrpo_jax.models.huggingface import param_shapes
from regrpo_jax.models.parameter_count import parameter_count
from regrpo_jax.models.qwen2_vl.hf_config import read_config
from regrpo_jax.run.model_defaults import AUTO, LARGE, LARGE_CHOICES, SMALL_CHOICES, chosen_values, with_model_defaults

TINY = Path(__file__).parents[1] / "tiny_config.py"
FIELDS = sorted(SMALL_CHOICES)
CHOICES = {field: bound.choices for field, bound in declared_fields(declared()).items()}
ELSEWHERE = {"model.quantize": "none", "player.server": ""}


def test_the_fields_are_those_that_may_be_auto_and_are() -> None:
    defaults = field_values(base_config())
    may_be = {field for field, choices in CHOICES.items() if AUTO in choices} - {"model.attention"}
    assert may_be == set(SMALL_CHOICES) == set(LARGE_CHOICES)
    assert {defaults[field] for field in FIELDS} == {AUTO}
    for choices in (SMALL_CHOICES, LARGE_CHOICES):
        assert all(choice in CHOICES[field] and choice != AUTO for field, choice in choices.items())


@settings(deadline=None)
@given(
    values=st.fixed_dictionaries({field: st.sampled_from(CHOICES[field]) for field in FIELDS}),
    parameters=st.integers(1, 10**12),
    quantize=st.sampled_from(CHOICES["model.quantize"]),
    served=st.booleans(),
)
def test_auto_alone_is_decided(values: dict[str, str], parameters: int, quantize: str, served: bool) -> None:
    others = {"model.quantize": quantize, "player.server": "http://localhost/v1 m" if served else ""}
    found = chosen_values(values | others, parameters)
    assert found.keys() == values.keys() and AUTO not in found.values()
    adapter_only = quantize != "none" or served
    for field, value in values.items():
        expected = (LARGE_CHOICES if parameters >= LARGE else SMALL_CHOICES)[field]
        expected = "lora" if adapter_only and field == "optimizer.trainable" else expected
        assert found[field] == (expected if value == AUTO else value)
    assert chosen_values(found | others, 1) == chosen_values(found | others, 10**12) == found


@pytest.mark.parametrize(
    ("model", "large"),
    [("Qwen2.5-0.5B", True), ("Qwen2-VL-2B", True), ("Qwen2.5-VL-3B", True), ("Qwen2-VL-7B", True), (None, False)],
)
def test_published_models_are_large_and_the_preset_is_not(
    tmp_path: Path, published: dict[str, Any], model: str | None, large: bool
) -> None:
    config = base_config()
    if model is not None:
        (tmp_path / "config.json").write_text(json.dumps(published[model].description))
        config.model.path = str(tmp_path)
    before = field_values(config)
    resolved = with_model_defaults(config)
    found = field_values(resolved)
    assert {field: found[field] for field in FIELDS} == (LARGE_CHOICES if large else SMALL_CHOICES)
    assert field_values(config) == before
    assert {name: value for name, value in found.items() if name not in FIELDS} == {
        name: value for name, value in before.items() if name not in FIELDS
    }
    assert resolved.is_locked and with_model_defaults(resolved) is resolved


def test_a_folder_without_a_model_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: no such file; config\.model\.path must be"):
        main([f"--config={TINY}", f"--workdir={tmp_path / 'run'}", f"--config.model.path={tmp_path / 'lost'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "model",
    (
        "Qwen2-VL-2B",
        "Qwen2-VL-72B",
        "Qwen2.5-VL-3B",
        "Qwen3-VL-4B",
        "Qwen2-7B",
        "Qwen2.5-0.5B",
        "Qwen3-8B",
        "SmolLM2-135M",
    ),
)
def test_parameters_of_published_models(tmp_path: Path, published: dict[str, Any], model: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published[model].description))
    assert parameter_count(read_config(tmp_path / "config.json")) == published[model].parameters


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_parameters_are_those_of_the_arrays(data: st.DataObject) -> None:
    number = st.integers(1, 5)
    heads = data.draw(number)
    vision = None
    if data.draw(st.booleans()):
        vision = VisionConfig(
            depth=data.draw(number),
            embed_dim=4 * heads,
            num_heads=heads,
            intermediate_size=data.draw(number),
            patch_size=data.draw(number),
            spatial_merge_size=data.draw(st.sampled_from((1, 2))),
            gated=data.draw(st.booleans()),
            patch_bias=data.draw(st.booleans()),
            learned_grid=data.draw(st.integers(0, 3)),
            interpolated_grid=data.draw(st.integers(0, 3)),
            deepstack_blocks=data.draw(st.sampled_from(((), (0,)))),
        )
    config = PolicyConfig(
        vocab_size=7,
        hidden_size=data.draw(number),
        intermediate_size=data.draw(number),
        num_layers=data.draw(number),
        num_heads=2 * heads,
        num_key_value_heads=heads,
        head_dim=4,
        tie_word_embeddings=data.draw(st.booleans()),
        attention_bias=data.draw(st.booleans()),
        query_key_norm=data.draw(st.booleans()),
        token_mixing_width=data.draw(st.integers(0, 3)),
        vision=vision,
    )
    assert parameter_count(config) == sum(math.prod(array.shape) for array in param_shapes(config).values())


def test_parameters_of_the_preset() -> None:
    for images in (True, False):
        config = dataclasses.replace(tiny(900, images=images), remat="none")
        assert parameter_count(config) == sum(math.prod(array.shape) for array in param_shapes(config).values())


def test_a_run_says_and_records_what_was_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--config={TINY}", f"--workdir={tmp_path}", "--config.sft.steps=0", "--config.rl.steps=0"]
    main(arguments)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("policy of ")]
    assert line.endswith(
        " parameters: model.dtype=float32, model.param_dtype=float32, model.remat=none, "
        "optimizer.trainable=full, rl.optimizer.trainable=lora"
    )
    recorded = json.loads((tmp_path / "config.json").read_text())["config"]
    assert recorded["model"]["dtype"] == recorded["model"]["param_dtype"] == "float32"
    assert (recorded["model"]["remat"], recorded["optimizer"]["trainable"]) == ("none", "full")
    main([*arguments, "--config.model.dtype=float32"])  # the same run, whether it is chosen or set
    assert "resuming with changed" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"holds a run with other model\.dtype"):
        main([*arguments, "--config.model.dtype=bfloat16"])
