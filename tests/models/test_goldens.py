"""What transformers computed once with tiny models of every family, stored (`tests/goldens`), against ours."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import load_policy, tensor_places
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.sampler import Prompt, generate, start
from regrpo_jax.models.token_choice import sampling_controls

GOLDENS = Path(__file__).parents[1] / "goldens"
IMAGE_TOKEN = 38
FAMILIES = ("llama", "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
TOLERANCE = 2e-4
Case = dict[str, np.ndarray]


def read_case(family: str) -> tuple[PolicyConfig, dict[str, Any], Case, TokenBlock, ImagePatches | None]:
    config, params = load_policy(GOLDENS / family, remat="none")
    with np.load(GOLDENS / family / "case.npz") as stored:
        case = dict(stored)
    parts = {
        kind: {name.partition("/")[2]: array for name, array in case.items() if name.startswith(f"{kind}/")}
        for kind in ("block", "images")
    }
    images = ImagePatches(**parts["images"]) if parts["images"] else None
    return config, {"params": params}, case, TokenBlock(**parts["block"]), images


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_loss_and_gradient_norms(family: str) -> None:
    config, variables, case, block, images = read_case(family)
    functions = policy_functions(config)

    def loss(variables: dict[str, Any], block: TokenBlock, images: ImagePatches | None) -> tuple[jax.Array, jax.Array]:
        hidden, _ = functions.run_prefix(variables, block, images)
        logits = hidden @ functions.head(variables).T
        logprobs = jax.nn.log_softmax(logits[:, :-1])
        chosen = jnp.take_along_axis(logprobs, block.tokens[:, 1:, None], axis=-1)[..., 0]
        scored = (block.segment_ids[:, :-1] > 0) & (block.tokens[:, 1:] != IMAGE_TOKEN)
        return -jnp.sum(jnp.where(scored, chosen, 0)) / jnp.sum(scored), logits

    (value, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables, block, images)
    valid = block.segment_ids > 0
    np.testing.assert_allclose(np.asarray(logits)[valid], case["logits"][valid], atol=TOLERANCE)
    np.testing.assert_allclose(value, case["loss"], atol=TOLERANCE)
    flat = traverse_util.flatten_dict(gradient["params"], sep="/")
    for name, (path, layer) in tensor_places(config, flat).items():
        part = flat[path] if layer is None else flat[path][layer]
        np.testing.assert_allclose(jnp.linalg.norm(part), case[f"gradient_norm/{name}"], atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_continuation(family: str) -> None:
    """The last row, its padding included, as one group with a branch."""
    config, variables, case, block, images = read_case(family)
    row: TokenBlock = jax.tree.map(lambda array: array[-1:], block)
    prefix: TokenBlock = jax.tree.map(lambda array: array[:, :-1], row)
    prompt = Prompt(
        prefix=prefix,
        images=None if images is None else jax.tree.map(lambda array: array[-1:], images),
        last_token=row.tokens[:, -1],
        next_position=row.positions[:, -1].max(axis=-1) + 1,
        draw_ids=np.zeros(1, np.int32),
    )
    functions, length = policy_functions(config), len(case["greedy"])
    decoding = start(functions, variables, prompt, jax.random.key(0), branches=1, capacity=length)
    greedy = sampling_controls(max_tokens=length, stops=(), temperature=0.0)
    samples, _ = generate(functions, variables, decoding, greedy)
    np.testing.assert_array_equal(samples.tokens[0, 0], case["greedy"])
