"""Out and in again: full weights that we write, with an adapter merged or not, are what transformers computes with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

from regrpo_jax.models.huggingface import load_policy, save_policy
from regrpo_jax.models.safetensors_files import INDEX

TOLERANCE, IMAGE_TOKEN = 2e-4, 38
SAMPLES = {
    **dict.fromkeys(("llama", "llama3", "qwen2", "qwen3"), ((12,), (5,))),
    "qwen2_vl": ((9,), (2, (5, 3), 3, (1, 4), 2)),
    "qwen2_5_vl": ((4, (2, 3), 5),),
    "qwen3_vl": ((9,), (2, (5, 3), 3, (1, 4), 2)),
}


@pytest.mark.parametrize("family", SAMPLES)
def test_sharded_and_bfloat16_directories_load(twins: Callable[..., Any], tmp_path: Path, family: str) -> None:
    pair = twins(family)
    pair.theirs.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded" / INDEX).exists()
    jax.tree.map(np.testing.assert_array_equal, load_policy(tmp_path / "sharded")[1], pair.variables["params"])
    half = type(pair.theirs).from_pretrained(pair.folder, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    rounded = jax.tree.map(lambda array: array.astype("bfloat16").astype("float32"), pair.variables["params"])
    jax.tree.map(np.testing.assert_array_equal, load_policy(tmp_path / "half")[1], rounded)


@pytest.mark.parametrize("family", SAMPLES)
@pytest.mark.parametrize("from_scratch", [False, True])
def test_exported_weights_give_the_same_logits(
    twins: Callable[..., Any], tmp_path: Path, family: str, from_scratch: bool
) -> None:
    """In several files; with our own `config.json` where the policy does not come from a directory."""
    pair = twins(family)
    random = np.random.default_rng(1)
    changed = jax.tree.map(lambda x: x + random.normal(scale=0.02, size=x.shape).astype("f4"), pair.variables["params"])
    kind = {"token_ids": {"image_token_id": IMAGE_TOKEN}} if from_scratch else {"source": pair.folder}
    save_policy(tmp_path, pair.config, changed, shard_bytes=50_000, **kind)
    assert (tmp_path / INDEX).exists()
    theirs = type(pair.theirs).from_pretrained(tmp_path, dtype=torch.float32).eval()
    batch = pair.batch(*SAMPLES[family])
    with torch.no_grad():
        expected = theirs(**batch.theirs()).logits.numpy()
    logits = pair.logits({"params": changed}, batch.block, batch.images)
    np.testing.assert_allclose(logits[batch.valid], expected[batch.valid], atol=TOLERANCE)
    assert type(theirs.config) is type(pair.theirs.config)
    assert theirs.config.architectures == [type(pair.theirs).__name__]
    config, again = load_policy(tmp_path, remat="none")
    assert config == pair.config
    jax.tree.map(np.testing.assert_array_equal, again, changed)
