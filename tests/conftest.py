"""What tests of several folders share: patience, quick compiling, and the published sizes of models that we load."""

import os
import shutil
import tempfile
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

# Tests share their cores with others: how long an example takes says nothing about it.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Compiling is most of what tests wait for: of these programs no fast code is wanted, and none is compiled twice.
QUICK_COMPILING = "--xla_backend_optimization_level=0"
COMPILED = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Before jax is imported, here and in the processes that tests start. Each test process keeps its own programs."""
    config.stash[COMPILED] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILING}".strip()
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = config.stash[COMPILED]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[COMPILED], ignore_errors=True)


VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "patch_size": 14,
          "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}  # fmt: skip
VISION_2_5 = {"depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
              "in_chans": 3, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
              "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2}  # fmt: skip

VISION_3 = {"depth": 27, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 4304,
            "num_heads": 16, "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24]}  # fmt: skip
SMALLER_3 = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}


def description(family: str, sizes: tuple[int, ...], *, tied: bool) -> dict[str, Any]:
    """config.json as it was published, as far as it speaks of sizes."""
    hidden, intermediate, layers, heads, key_value_heads, vocabulary = sizes
    config: dict[str, Any] = {
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }
    if family.startswith("qwen3"):
        config["head_dim"] = 128
    if family == "qwen3_vl":
        rope = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}
        vision = VISION_3 | (SMALLER_3 if tied else {}) | {"out_hidden_size": hidden}
        text = config | {"model_type": "qwen3_vl_text", "rope_scaling": rope, "rope_theta": 5_000_000.0}
        top = {"model_type": family, "image_token_id": 151_655, "video_token_id": 151_656}
        return top | {"tie_word_embeddings": tied, "text_config": text, "vision_config": vision}
    if family.endswith("vl"):
        config["rope_scaling"] = {"type": "mrope", "mrope_section": [16, 24, 24]}
        config["vision_config"] = (
            VISION | {"hidden_size": hidden} if family == "qwen2_vl" else VISION_2_5 | {"out_hidden_size": hidden}
        )
    return config


class Published(NamedTuple):
    """A published model: its `config.json` as far as it speaks of sizes, and what is in its checkpoint."""

    description: dict[str, Any]
    parameters: int
    tensors: int


# hidden, intermediate, layers, heads, key-value heads, vocabulary; tied; parameters; tensors
PUBLISHED: dict[str, tuple[str, tuple[int, ...], bool, int, int]] = {
    "Qwen2-VL-2B": ("qwen2_vl", (1536, 8960, 28, 12, 2, 151_936), True, 2_208_985_600, 729),
    "Qwen2-VL-7B": ("qwen2_vl", (3584, 18_944, 28, 28, 4, 152_064), False, 8_291_375_616, 730),
    "Qwen2-VL-72B": ("qwen2_vl", (8192, 29_568, 80, 64, 8, 152_064), False, 73_405_560_320, 1354),
    "Qwen2.5-VL-3B": ("qwen2_5_vl", (2048, 11_008, 36, 16, 2, 151_936), True, 3_754_622_976, 824),
    "Qwen2.5-VL-7B": ("qwen2_5_vl", (3584, 18_944, 28, 28, 4, 152_064), False, 8_292_166_656, 729),
    "Qwen3-VL-2B": ("qwen3_vl", (2048, 6144, 28, 16, 8, 151_936), True, 2_127_532_032, 625),
    "Qwen3-VL-4B": ("qwen3_vl", (2560, 9728, 36, 32, 8, 151_936), True, 4_437_815_808, 713),
    "Qwen3-VL-8B": ("qwen3_vl", (4096, 12_288, 36, 32, 8, 151_936), False, 8_767_123_696, 750),
    "Qwen3-VL-32B": ("qwen3_vl", (5120, 25_600, 64, 64, 8, 151_936), False, 33_357_390_064, 1058),
    "Qwen2-7B": ("qwen2", (3584, 18_944, 28, 28, 4, 152_064), False, 7_615_616_512, 339),
    "Qwen2.5-0.5B": ("qwen2", (896, 4864, 24, 14, 2, 151_936), True, 494_032_768, 290),
    "Qwen3-0.6B": ("qwen3", (1024, 3072, 28, 16, 8, 151_936), True, 596_049_920, 310),
    "Qwen3-8B": ("qwen3", (4096, 12_288, 36, 32, 8, 151_936), False, 8_190_735_360, 399),
    "SmolLM2-135M": ("llama", (576, 1536, 30, 9, 3, 49_152), True, 134_515_008, 272),
    "TinyLlama-1.1B": ("llama", (2048, 5632, 22, 32, 4, 32_000), False, 1_100_048_384, 201),
}


@pytest.fixture(scope="session")
def published() -> dict[str, Published]:
    """Name of a model -> what was published of it."""
    return {
        name: Published(description(family, sizes, tied=tied), parameters, tensors)
        for name, (family, sizes, tied, parameters, tensors) in PUBLISHED.items()
    }
