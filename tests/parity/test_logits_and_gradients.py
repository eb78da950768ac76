"""Every family against transformers: logits and gradients, with any number of images of any shape in a row."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.torch import save_file

from regrpo_jax.models.huggingface import load_policy

TOLERANCE = 2e-4
ONE = (4, (2, 3), 5)
TWO = (2, (5, 3), 3, (1, 4), 2)
THREE = (3, (2, 3), 1, (3, 1), 2, (1, 5), 4)  # neighbours with a word between, odd sides, a strip
BATCHES = {
    "text": ((12,),),
    "long text": ((90,),),
    "one image": (ONE,),
    "three images": (THREE,),
    "0, 1 and 2 images": ((9,), ONE, TWO),
}


@pytest.mark.parametrize(
    ("family", "heads", "key_value_heads", "tied", "batch"),
    [
        ("qwen2", 4, 4, True, "text"),  # 1, 2 and 7 queries to a key
        ("qwen2", 4, 2, False, "text"),
        ("qwen2", 14, 2, True, "text"),
        ("llama", 4, 4, False, "text"),
        ("llama", 14, 2, True, "text"),
        ("llama3", 4, 2, True, "long text"),
        ("qwen3", 4, 2, False, "text"),
        ("qwen3", 14, 2, True, "text"),
        ("qwen2_vl", 4, 4, False, "one image"),
        ("qwen2_vl", 4, 2, False, "text"),
        ("qwen2_vl", 4, 2, False, "three images"),
        ("qwen2_vl", 4, 2, False, "0, 1 and 2 images"),
        ("qwen2_vl", 14, 2, True, "0, 1 and 2 images"),
        ("qwen2_5_vl", 4, 2, False, "text"),
        ("qwen2_5_vl", 4, 2, False, "one image"),
        ("qwen2_5_vl", 4, 4, True, "three images"),
        ("qwen2_5_vl", 14, 2, False, "0, 1 and 2 images"),
        ("qwen3_vl", 4, 2, False, "text"),
        ("qwen3_vl", 4, 2, False, "three images"),
        ("qwen3_vl", 14, 2, True, "0, 1 and 2 images"),
    ],
)
def test_logits_and_gradients_agree(
    twins: Callable[..., Any],
    tmp_path: Path,
    family: str,
    heads: int,
    key_value_heads: int,
    tied: bool,
    batch: str,
) -> None:
    pair = twins(family, heads, key_value_heads, tied)
    inputs = pair.batch(*BATCHES[batch])
    arguments = inputs.theirs()
    pair.theirs.zero_grad()
    expected = pair.theirs(**arguments).logits
    loss = pair.their_loss(expected, arguments)
    loss.backward()
    (value, logits), gradient = pair.value_and_gradient(pair.variables, inputs.block, inputs.images)
    np.testing.assert_allclose(logits[inputs.valid], expected.detach().numpy()[inputs.valid], atol=TOLERANCE)
    np.testing.assert_allclose(value, loss.item(), atol=TOLERANCE)
    assert np.std(logits[inputs.valid]) > 0.3

    # The gradient has the weights' names (of transformers 5, in memory), so it can be written and loaded like a model.
    theirs = {
        name: 0 * parameter.detach() if parameter.grad is None else parameter.grad.clone()
        for name, parameter in pair.theirs.named_parameters()
    }
    assert ("lm_head.weight" in theirs) != tied
    save_file(theirs, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((pair.folder / "config.json").read_text())
    _, wanted = load_policy(tmp_path, remat="none")
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=TOLERANCE), gradient["params"], wanted)
    large = jax.tree.map(lambda leaf: float(np.max(np.abs(leaf))) > 1e-3, wanted)
    assert all(jax.tree.leaves({name: tree for name, tree in large.items() if name != "vision"}))
    if "vision" in large:
        assert all(jax.tree.leaves(large["vision"])) == (batch != "text")
