"""What this machine's matrix products reach, measured beside whatever is to be compared with it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from regrpo_jax.models.config import PolicyConfig

SECONDS = 1.0  # for which each shape is repeated


def model_products(config: PolicyConfig, tokens: int) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of the products that a layer is made of, and a square one."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_heads * config.head_dim
    return [(tokens, hidden, queries), (tokens, hidden, inner), (tokens, inner, hidden), (2048, 2048, 2048)]


def matmul_peak(products: Sequence[tuple[int, int, int]]) -> float:
    """FLOPs per second of the fastest call of any of the products, float32, all processors."""
    return max(_fastest(*product) for product in products)


def _fastest(rows: int, inner: int, columns: int) -> float:
    left, right = jnp.ones((rows, inner)), jnp.ones((inner, columns))
    multiply = jax.jit(jnp.matmul)
    multiply(left, right).block_until_ready()
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        multiply(left, right).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best
