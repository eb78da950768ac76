"""Greedy decoding of a batch against `transformers.generate`, and the stored goldens against today's transformers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.sampler import Prompt, generate, start
from regrpo_jax.models.token_choice import sampling_controls
from tests.goldens.make import FAMILIES, FOLDER, case_of
from tests.parity.conftest import PAD, Batch

NEW_TOKENS = 12
TEXT, MIXED = ((7,), (3,), (11,)), ((9,), (4, (2, 3), 5), (2, (5, 3), 3, (1, 4), 2))


@pytest.mark.parametrize(
    ("family", "samples"),
    [
        ("llama", TEXT),
        ("qwen2", TEXT),
        ("qwen3", TEXT),
        ("qwen2_vl", TEXT),
        ("qwen2_vl", MIXED),
        ("qwen2_5_vl", MIXED),
        ("qwen3_vl", MIXED),
    ],
)
def test_greedy_tokens_are_the_same(twins: Callable[..., Any], family: str, samples: tuple[Any, ...]) -> None:
    """Prompts of different lengths in one batch; two branches a group, which must not differ."""
    pair = twins(family)
    batch = pair.batch(*samples)
    arguments = batch.theirs()
    theirs = pair.theirs.generate(**arguments, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=PAD)
    block = batch.block
    prefix: TokenBlock = jax.tree.map(lambda array: array[:, :-1], block)
    prompt = Prompt(
        prefix=prefix,
        images=batch.images,
        last_token=block.tokens[:, -1],
        next_position=block.positions[:, -1].max(axis=-1) + 1,
        draw_ids=np.arange(len(block.tokens)),
    )
    decoding = start(pair.functions, pair.variables, prompt, jax.random.key(0), branches=2, capacity=NEW_TOKENS)
    greedy = sampling_controls(max_tokens=NEW_TOKENS, stops=(), temperature=0.0)
    samples_drawn, _ = generate(pair.functions, pair.variables, decoding, greedy)
    expected = theirs[:, arguments["input_ids"].shape[1] :].numpy()
    for branch in range(2):
        np.testing.assert_array_equal(samples_drawn.tokens[:, branch], expected)
    assert len(np.unique(expected)) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_goldens_are_what_transformers_computes(family: str) -> None:
    classes: dict[str, Any] = {
        **dict.fromkeys(("llama", "qwen2", "qwen3"), AutoModelForCausalLM),
        "qwen2_vl": Qwen2VLForConditionalGeneration,
        "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
        "qwen3_vl": Qwen3VLForConditionalGeneration,
    }
    model = classes[family].from_pretrained(FOLDER / family, dtype=torch.float32).eval()
    with np.load(FOLDER / family / "case.npz") as stored:
        case = dict(stored)
    for name, array in case_of(model, Batch.stored(case)).items():
        np.testing.assert_allclose(array, case[name], rtol=1e-4, atol=1e-5, err_msg=name)  # float32 of two processors
