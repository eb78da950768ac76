"""What matrix products reach on this machine, measured beside whatever is to be compared with it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from regrpo_jax.models.config import PolicyConfig

SECONDS = 2.0  # for which each shape is repeated


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and seconds of processors that this process had: fewer where others had them."""

    wall: float
    processors: float


def spent(call: Callable[[], Any]) -> Spent:
    """What a call takes, its results awaited."""
    wall, processors = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return Spent(time.perf_counter() - wall, time.process_time() - processors)


def model_products(config: PolicyConfig, tokens: int) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of the products that a layer is made of, and a square one."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_heads * config.head_dim
    return [(tokens, hidden, queries), (tokens, hidden, inner), (tokens, inner, hidden), (2048, 2048, 2048)]


def matmul_peak(products: Sequence[tuple[int, int, int]]) -> Spent:
    """Seconds that an operation of the fastest of the products takes, float32, over `SECONDS` of each.

    Over some seconds and not in the best call, because what is compared with it takes long too, and meets the other
    processes of the machine on the way.
    """
    measured = [_seconds_of_an_operation(*product) for product in products]
    return Spent(min(one.wall for one in measured), min(one.processors for one in measured))


def _seconds_of_an_operation(rows: int, inner: int, columns: int) -> Spent:
    left, right = jnp.ones((rows, inner)), jnp.ones((inner, columns))
    multiply = jax.jit(jnp.matmul)
    multiply(left, right).block_until_ready()
    once = spent(lambda: multiply(left, right))
    calls = max(1, round(SECONDS / once.wall))

    def repeated() -> None:
        for _ in range(calls):
            multiply(left, right).block_until_ready()

    taken, operations = spent(repeated), calls * 2 * rows * inner * columns
    return Spent(taken.wall / operations, taken.processors / operations)
