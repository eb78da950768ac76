"""`config.json` in the forms of transformers 4 and 5, there and back, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig, VisionConfig, interleaved_sections, sectioned_axes, tiny
from regrpo_jax.models.qwen2_vl.hf_config import describe, foreign_parts, parse_config, read_config
from tests.conftest import VISION

MODELS = ("Qwen2-VL-7B", "Qwen2.5-VL-7B", "Qwen2-7B", "Qwen3-0.6B", "Qwen3-VL-2B", "Qwen3-VL-8B", "SmolLM2-135M")
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """A flat description as transformers 5 writes it."""
    outside = {"model_type", "vision_config", "tie_word_embeddings"}
    text = {key: value for key, value in flat.items() if key not in outside}
    rope = text.pop("rope_scaling", {}) | {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
    rope.pop("type", None)
    vision = dict(flat["vision_config"])
    vision["in_channels"] = vision.pop("in_chans")
    vision["rope_parameters"] = {"rope_type": "axial", "rope_theta": 10_000.0}
    kept = {key: value for key, value in flat.items() if key in outside}
    return kept | {"vision_config": vision, "text_config": text | {"rope_parameters": rope}}


@pytest.mark.parametrize("model", ["Qwen2-VL-2B", "Qwen2-VL-7B", "Qwen2.5-VL-3B", "Qwen2.5-VL-7B"])
def test_both_forms_say_the_same(published: dict[str, Any], model: str) -> None:
    flat = published[model].description
    config = parse_config(flat)
    assert parse_config(nested(flat)) == config
    assert config.rotary_axes == (0,) * 16 + (1,) * 24 + (2,) * 24
    assert config.rope_theta == 1_000_000.0
    assert config.vision is not None
    assert config.vision.window_patches == (8 if "2.5" in model else 0)


@pytest.mark.parametrize("model", MODELS)
def test_what_we_describe_we_read(published: dict[str, Any], model: str) -> None:
    config = parse_config(published[model].description)
    assert parse_config(describe(config)) == config


@given(
    heads=st.sampled_from([(2, 2), (4, 2), (14, 2)]),
    pairs=st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8)),
    tied=st.booleans(),
    gated=st.booleans(),
    depth=st.integers(1, 4),
)
def test_any_architecture_survives_the_way_there_and_back(
    heads: tuple[int, int], pairs: tuple[int, int, int], tied: bool, gated: bool, depth: int
) -> None:
    vision = VisionConfig(
        depth=depth,
        embed_dim=32,
        num_heads=2,
        intermediate_size=40 if gated else 64,
        gated=gated,
        window_size=112 if gated else 0,
        full_attention_blocks=(depth - 1,) if gated else (),
    )
    config = PolicyConfig(
        vocab_size=40,
        hidden_size=heads[0] * 2 * sum(pairs),
        intermediate_size=56,
        num_layers=3,
        num_heads=heads[0],
        num_key_value_heads=heads[1],
        head_dim=2 * sum(pairs),
        tie_word_embeddings=tied,
        rotary_axes=sectioned_axes(pairs),
        vision=vision,
    )
    assert parse_config(json.loads(json.dumps(describe(config)))) == config


def test_the_tiny_preset_is_no_hugging_face_architecture() -> None:
    with pytest.raises(UserError, match="token_mixing_width, embedding_scale, vision.learned_grid, rotary_axes"):
        describe(tiny(100))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"model_type": "qwen3_vl_moe"},
            "model_type is 'qwen3_vl_moe'; supported are 'llama', 'qwen2', 'qwen3', 'qwen2_vl', ",
        ),
        ({"rope_scaling": {"type": "yarn", "mrope_section": [16, 24, 24]}}, "rope_type 'yarn' is not supported"),
        ({"rope_scaling": {"type": "mrope"}}, "'mrope_section' is missing"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24]}}, "mrope_section has 2 numbers"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 23]}}, "rotary_axes has 63 entries"),
        ({"vision_config": {}}, "'hidden_size' is missing"),
        ({"vision_config": VISION | {"hidden_size": 64}}, "vision_config.hidden_size is 64, hidden_size is 3584"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        (
            {"vision_config": VISION | {"hidden_size": 3584, "spatial_merge_size": 3}},
            "vision_config.spatial_merge_size 3 is not supported",
        ),
        ({"vision_config": None}, "the key 'vision_config' is missing"),
        ({"num_key_value_heads": 5}, "multiple of num_key_value_heads"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    tmp_path: Path, published: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(published["Qwen2-VL-7B"].description | change))
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("model", "change", "reason"),
    [
        ("SmolLM2-135M", {"attention_bias": True}, "attention_bias True is not supported, only False is"),
        ("SmolLM2-135M", {"mlp_bias": True}, "mlp_bias True is not supported, only False is"),
        ("SmolLM2-135M", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ("SmolLM2-135M", {"rope_scaling": LLAMA3 | {"low_freq_factor": None}}, "'low_freq_factor' is missing"),
        ("SmolLM2-135M", {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "expected 0 < low < high"),
        ("Qwen3-0.6B", {"rope_scaling": LLAMA3}, "rope_type 'llama3' is not supported, only 'default' is"),
        ("SmolLM2-135M", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear' is not supported"),
        ("SmolLM2-135M", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic' is not supported"),
        ("SmolLM2-135M", {"num_attention_heads": 7}, "not a multiple of the number of attention heads"),
        ("Qwen3-0.6B", {"attention_bias": True}, "attention_bias True is not supported"),
        ("Qwen3-0.6B", {"use_sliding_window": True}, "use_sliding_window True is not supported"),
        ("Qwen3-0.6B", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type 'yarn' is not supported"),
        ("Qwen3-0.6B", {"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe'; supported are"),
        ("Qwen2-7B", {"model_type": "mistral"}, "model_type is 'mistral'; supported are"),
    ],
)
def test_variants_of_text_families_are_refused_in_a_sentence(
    tmp_path: Path, published: dict[str, Any], model: str, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(published[model].description))
    read_config(path)
    path.write_text(json.dumps(published[model].description | change))
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert reason in str(error.value)


def inside(description: dict[str, Any], part: str, **values: Any) -> dict[str, Any]:
    """With other values in a part; None takes a key away."""
    changed = description[part] | values
    return description | {part: {key: value for key, value in changed.items() if value is not None}}


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("text_config", {"attention_bias": True}, "attention_bias True is not supported"),
        ("text_config", {"rope_scaling": {"rope_type": "mrope", "mrope_section": [24, 20, 20]}}, "rope_type 'mrope'"),
        ("text_config", {"rope_scaling": {"rope_type": "default"}}, "the key 'mrope_section' is missing"),
        ("text_config", {"rope_scaling": {"mrope_section": [2, 31, 31]}}, "mrope_section [2, 31, 31] cannot be dealt"),
        ("text_config", {"rope_scaling": {"mrope_section": [24, 20, 19]}}, "rotary_axes has 63 entries"),
        (
            "text_config",
            {"rope_scaling": {"mrope_section": [24, 20, 20], "mrope_interleaved": False}},
            "mrope_interleaved False is not supported, only True is",
        ),
        ("text_config", {"head_dim": 64}, "rotary_axes has 64 entries, head_dim / 2 is 32"),
        ("text_config", {"num_hidden_layers": 2}, "3 DeepStack features, but 2 decoder layers"),
        ("vision_config", {"hidden_act": "quick_gelu"}, "vision_config.hidden_act 'quick_gelu' is not supported"),
        ("vision_config", {"out_hidden_size": 64}, "vision_config.out_hidden_size is 64, hidden_size is 4096"),
        ("vision_config", {"num_position_embeddings": 2300}, "num_position_embeddings is 2300, which is no square"),
        (
            "vision_config",
            {"deepstack_visual_indexes": [16, 8]},
            "deepstack_visual_indexes is [16, 8], expected rising",
        ),
        ("vision_config", {"deepstack_visual_indexes": [8, 27]}, "rising numbers of its 27 blocks"),
        ("vision_config", {"deepstack_visual_indexes": None}, "the key 'deepstack_visual_indexes' is missing"),
    ],
)
def test_variants_of_qwen3_vl_are_refused_in_a_sentence(
    tmp_path: Path, published: dict[str, Any], part: str, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(inside(published["Qwen3-VL-8B"].description, part, **change)))
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert reason in str(error.value)


def test_qwen3_vl_has_its_decoder_inside(tmp_path: Path, published: dict[str, Any]) -> None:
    path = tmp_path / "config.json"
    described = published["Qwen3-VL-8B"].description
    path.write_text(json.dumps({key: value for key, value in described.items() if key != "text_config"}))
    with pytest.raises(UserError, match="the key 'text_config' is missing"):
        read_config(path)


def test_the_parts_of_qwen3_vl(published: dict[str, Any]) -> None:
    config = parse_config(published["Qwen3-VL-8B"].description)
    assert config.rotary_axes == (0, 1, 2) * 20 + (0,) * 4  # of 24, 20 and 20
    assert (config.rope_theta, config.head_dim, config.query_key_norm, config.attention_bias) == (5e6, 128, True, False)
    assert config.vision is not None
    assert (config.vision.interpolated_grid, config.deepstack_blocks) == (48, (8, 16, 24))


@given(
    sections=st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8)).filter(
        lambda shares: max(3 * shares[1] - 2, 3 * shares[2] - 1) < sum(shares)
    ),
    deepstack=st.sets(st.integers(0, 3), max_size=3),
    tied=st.booleans(),
)
def test_any_qwen3_vl_survives_the_way_there_and_back(
    sections: tuple[int, int, int], deepstack: set[int], tied: bool
) -> None:
    vision = VisionConfig(
        depth=4,
        embed_dim=32,
        num_heads=2,
        intermediate_size=40,
        patch_size=16,
        activation="gelu_tanh",
        patch_bias=True,
        interpolated_grid=5,
        deepstack_blocks=tuple(sorted(deepstack)),
    )
    config = PolicyConfig(
        vocab_size=40,
        hidden_size=24,
        intermediate_size=56,
        num_layers=3,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=2 * sum(sections),
        tie_word_embeddings=tied,
        attention_bias=False,
        query_key_norm=True,
        rotary_axes=interleaved_sections(sections),
        vision=vision,
    )
    assert [config.rotary_axes.count(axis) for axis in range(3)] == list(sections)
    assert parse_config(json.loads(json.dumps(describe(config)))) == config


def test_a_tower_of_mixed_parts_is_no_hugging_face_architecture(published: dict[str, Any]) -> None:
    config = parse_config(published["Qwen3-VL-2B"].description)
    assert config.vision is not None
    for change, name in (
        ({"patch_bias": False}, "vision.patch_bias"),
        ({"activation": "quick_gelu"}, "vision.activation"),
        ({"window_size": 112}, "vision.window_size"),
        ({"gated": True}, "vision.interpolated_grid"),
        ({"interpolated_grid": 0}, "vision.deepstack_blocks"),
    ):
        mixed = dataclasses.replace(config, vision=dataclasses.replace(config.vision, **change))
        assert name in foreign_parts(mixed), change
    in_sections = dataclasses.replace(config, rotary_axes=sectioned_axes((24, 20, 20)))
    assert foreign_parts(in_sections) == ["rotary_axes"]


def test_slower_frequencies_come_back(published: dict[str, Any]) -> None:
    described = published["SmolLM2-135M"].description | {"rope_scaling": LLAMA3, "max_position_embeddings": 131_072}
    config = parse_config(described)
    assert config.rope_scaling is not None and config.rope_scaling.factor == 32.0
    assert parse_config(describe(config)) == config
    assert foreign_parts(dataclasses.replace(config, query_key_norm=True)) == ["rope_scaling"]


@pytest.mark.parametrize(("biases", "norms"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_decoder_is_described_as_the_family_that_has_its_parts(
    published: dict[str, Any], biases: bool, norms: bool
) -> None:
    text = parse_config(published["SmolLM2-135M"].description)
    config = dataclasses.replace(text, attention_bias=biases, query_key_norm=norms, head_dim=32, rotary_axes=(0,) * 16)
    if biases and norms:
        with pytest.raises(UserError, match="no Hugging Face architecture .attention_bias, query_key_norm"):
            describe(config)
        return
    assert describe(config)["model_type"] == {(False, False): "llama", (True, False): "qwen2"}.get(
        (biases, norms), "qwen3"
    )
    assert parse_config(describe(config)) == config
    vision = parse_config(published["Qwen2-VL-2B"].description)
    seeing = dataclasses.replace(vision, attention_bias=biases, query_key_norm=norms)
    assert bool(foreign_parts(seeing)) == ((biases, norms) != (True, False))


def test_our_own_settings_are_kept(tmp_path: Path, published: dict[str, Any]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(published["Qwen2-VL-2B"].description))
    settings: dict[str, Any] = {"dtype": "bfloat16", "remat": "dots", "attention": "splash", "lora_alpha": 3.0}
    config = read_config(path, **settings)
    assert {name: getattr(config, name) for name in settings} == settings
    assert dataclasses.replace(config, dtype="float32", remat="full", attention="xla", lora_alpha=16.0) == parse_config(
        published["Qwen2-VL-2B"].description
    )
