"""Every attention back-end against the reference, and the reference against attention spelt out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.models import attention
from regrpo_jax.models.attention import (
    branch_attention,
    masked_dot_product_attention,
    self_attention,
    splash_attention,
)

HEADS, KEY_VALUE_HEADS, HEAD_DIM = 4, 2, 8
SEGMENTS = np.array([[0, 0, 1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0, 0, 3]])


def random_inputs(token: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    rows = len(SEGMENTS)
    shapes = ((rows, token, HEADS, HEAD_DIM), *((rows, token, KEY_VALUE_HEADS, HEAD_DIM),) * 2)
    return tuple(random.normal(size=shape).astype(np.float32) for shape in shapes)


def spelt_out(queries: Any, keys: Any, values: Any, segment_ids: np.ndarray, causal: bool) -> np.ndarray:
    """One query at a time, one head at a time, in float64."""
    rows, token, heads, head_dim = queries.shape
    mixed = np.zeros((rows, token, heads, head_dim))
    for row, place, head in np.ndindex(rows, token, heads):
        kv_head = head // (heads // keys.shape[2])
        seen = [
            source
            for source in range(token)
            if segment_ids[row, source] == segment_ids[row, place] and (source <= place or not causal)
        ]
        own = keys[row, seen, kv_head].astype(float)
        scores = own @ queries[row, place, head].astype(float) / np.sqrt(head_dim)
        weights = np.exp(scores - scores.max())
        mixed[row, place, head] = weights / weights.sum() @ values[row, seen, kv_head]
    return mixed.reshape(rows, token, -1)


@pytest.mark.parametrize("causal", [True, False])
def test_the_reference_is_attention(causal: bool) -> None:
    inputs = random_inputs(SEGMENTS.shape[1])
    ours = self_attention(*inputs, SEGMENTS, causal=causal, backend="xla")
    np.testing.assert_allclose(ours, spelt_out(*inputs, SEGMENTS, causal), atol=1e-5)


@pytest.mark.parametrize(
    ("constant", "causal"), [("QUERY_CHUNK", True), ("QUERY_CHUNK", False), ("CAUSAL_BLOCK", True)]
)
@pytest.mark.parametrize("chunk", [3, 5, 7])
def test_chunks_of_queries_change_neither_values_nor_gradients(
    monkeypatch: pytest.MonkeyPatch, constant: str, causal: bool, chunk: int
) -> None:
    inputs = random_inputs(SEGMENTS.shape[1])

    def total(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        mixed = self_attention(*inputs, SEGMENTS, causal=causal, backend="xla")
        return jnp.sum(jnp.sin(mixed)), mixed

    whole = jax.grad(total, has_aux=True)(inputs)
    monkeypatch.setattr(attention, constant, chunk)
    chunked = jax.grad(total, has_aux=True)(inputs)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), chunked, whole)


def test_branches_one_by_one_change_neither_values_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    queries = random.normal(size=(2, 3, 5, HEADS, HEAD_DIM)).astype(np.float32)
    keys, values = random.normal(size=(2, 2, 3, 5, KEY_VALUE_HEADS, HEAD_DIM)).astype(np.float32)
    mask = np.broadcast_to(np.tri(5, dtype=bool), (2, 3, 5, 5))
    prefix_keys, prefix_values = random.normal(size=(2, 2, 7, KEY_VALUE_HEADS, HEAD_DIM)).astype(np.float32)
    valid = np.arange(7) >= np.array([[0], [3]])

    def total(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        queries, keys, values, prefix_keys, prefix_values = arrays
        mixed = branch_attention(queries, keys, values, mask, (prefix_keys, prefix_values, valid))
        return jnp.sum(jnp.sin(mixed)), mixed

    arrays = (queries, keys, values, prefix_keys, prefix_values)
    whole = jax.grad(total, has_aux=True)(arrays)
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    one_by_one = jax.grad(total, has_aux=True)(arrays)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), one_by_one, whole)


@pytest.mark.parametrize("causal", [True, False])
def test_the_arguments_for_cudnn_mean_the_reference(causal: bool) -> None:
    """cuDNN itself needs a GPU; what it is given is checked on the same function's own reference."""
    inputs = random_inputs(SEGMENTS.shape[1])

    def total(inputs: tuple[jax.Array, ...], fused: bool) -> tuple[jax.Array, jax.Array]:
        if fused:
            mixed = masked_dot_product_attention(*inputs, SEGMENTS, causal, implementation="xla")
            mixed = mixed.reshape(*mixed.shape[:2], -1)
        else:
            mixed = self_attention(*inputs, SEGMENTS, causal=causal, backend="xla")
        return jnp.sum(jnp.sin(mixed)), mixed

    ours, reference = (jax.grad(total, has_aux=True)(inputs, fused) for fused in (True, False))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours, reference)


@pytest.mark.parametrize("causal", [True, False])
def test_splash_attention_is_the_reference(causal: bool) -> None:
    """The TPU's kernel, interpreted: heads and tokens that have to be padded to its blocks, packed segments."""
    token = 150
    inputs = random_inputs(token)
    segments = np.repeat(SEGMENTS, 15, axis=1)

    def total(inputs: tuple[jax.Array, ...], fused: bool) -> tuple[jax.Array, jax.Array]:
        if fused:
            mixed = splash_attention(*inputs, segments, causal, interpret=True)
            mixed = mixed.reshape(*mixed.shape[:2], -1)
        else:
            mixed = self_attention(*inputs, segments, causal=causal, backend="xla")
        return jnp.sum(jnp.sin(mixed)), mixed

    ours, reference = (jax.grad(total, has_aux=True)(inputs, fused) for fused in (True, False))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours, reference)
