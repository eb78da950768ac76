"""Attention and log-prob kernels that could be had, compiled for TPUs that are elsewhere: which take our inputs, what
they ask for besides. No time is measured, for want of a device.

    PYTHONPATH=$PWD python experiments/attention_kernels/compare.py v5e:2x4 v6e:2x4
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from rich.console import Console
from rich.table import Table

from regrpo_jax.models.attention import self_attention
from regrpo_jax.models.logprobs import default_chunk, token_logprobs

ROWS, TOKENS, HEADS, KV_HEADS, HEAD_DIM = 2, 2048, 28, 4, 128  # a device's prefixes of Qwen2-VL-7B
SCORED, HIDDEN, VOCAB = 2048, 3584, 152_064
MIB = 2**20


def candidates() -> dict[str, Callable[..., jax.Array]]:
    """name -> scalar function of (queries, keys, values, segment ids)."""
    from tokamax import dot_product_attention  # an environment of its own has it

    def ours(backend: Any, *inputs: jax.Array) -> jax.Array:
        return jnp.sum(self_attention(*inputs, causal=True, backend=backend).astype(jnp.float32))

    def tokamax(with_segments: bool, queries: Any, keys: Any, values: Any, segment_ids: Any) -> jax.Array:
        same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]  # [row, 1, token, source]
        mask = same if with_segments else None
        mixed = dot_product_attention(queries, keys, values, mask=mask, is_causal=True, implementation="mosaic")
        return jnp.sum(mixed.astype(jnp.float32))

    return {
        "ours: xla": functools.partial(ours, "xla"),
        "ours: jax's splash, segments": functools.partial(ours, "splash"),
        "tokamax, causal alone": functools.partial(tokamax, False),
        "tokamax, segments as a mask": functools.partial(tokamax, True),
    }


def heads() -> dict[str, Callable[..., jax.Array]]:
    """name -> scalar function of (hidden, head, targets)."""
    from tokamax import linear_softmax_cross_entropy_loss

    def ours(hidden: Any, head: Any, targets: Any) -> jax.Array:
        return jnp.sum(token_logprobs(hidden, head, targets, targets >= 0, chunk_size=default_chunk(VOCAB)))

    def tokamax(hidden: Any, head: Any, targets: Any) -> jax.Array:
        return linear_softmax_cross_entropy_loss(hidden, targets, head.T, implementation="mosaic_tpu")

    return {"ours: each token's log-prob": ours, "tokamax: their sum alone": tokamax}


def told(function: Callable[..., jax.Array], inputs: tuple[Any, ...], argnums: tuple[int, ...]) -> str:
    """MiB of temporaries of value and gradient, or why there are none."""
    try:
        compiled = jax.jit(jax.value_and_grad(function, argnums=argnums)).lower(*inputs).compile()
    except Exception as error:  # whatever a kernel refuses with
        return f"no: {(str(error).strip() or type(error).__name__).splitlines()[0][:90]}"
    memory = compiled.memory_analysis()
    return f"{memory.temp_size_in_bytes / MIB:,.0f} MiB" if memory else "compiled"


def main() -> None:
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    table = Table("kernel", *sys.argv[1:], title="temporaries of value and gradient")
    devices = [topologies.get_topology_desc(name, "tpu").devices[0] for name in sys.argv[1:]]

    def shaped(device: Any, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))

    for name, function in candidates().items():
        cells = []
        for device in devices:
            own = functools.partial(shaped, device)
            heads_of = [own((ROWS, TOKENS, count, HEAD_DIM), jnp.bfloat16) for count in (HEADS, KV_HEADS, KV_HEADS)]
            cells.append(told(function, (*heads_of, own((ROWS, TOKENS), jnp.int32)), (0, 1, 2)))
        table.add_row(name, *cells)
    for name, function in heads().items():
        cells = []
        for device in devices:
            own = functools.partial(shaped, device)
            inputs = (
                own((SCORED, HIDDEN), jnp.bfloat16),
                own((VOCAB, HIDDEN), jnp.bfloat16),
                own((SCORED,), jnp.int32),
            )
            cells.append(told(function, inputs, (0, 1)))
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
