"""How much memory log-probs and their gradient take: chunks of scored tokens, against log_softmax over all of them.

    python experiments/logprob_memory/benchmark.py

Compiles the sum of the log-probs of random-shaped inputs and its gradient, and prints what XLA plans to allocate beside
inputs and results (`memory_analysis().temp_size_in_bytes`). Nothing is run. Twice: with a head that is trained (its
gradient is wanted too), and with a frozen one, as under an adapter.
"""

import functools
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import app, flags

from regrpo_jax.models.logprobs import token_logprobs

_VOCABULARY = flags.DEFINE_integer("vocabulary", 151_936, "Size of the vocabulary (Qwen2: 151,936).")
_HIDDEN = flags.DEFINE_integer("hidden", 256, "Width of the hidden states.")

TOKENS = (512, 2048)
CHUNKS = (32, 64, 128, 256)


def naive_logprobs(hidden: jax.Array, head: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """log pi of every token from the whole `[token, vocab]` array.  # [token]"""
    logprobs = jax.nn.log_softmax(hidden @ head.T)  # [token, vocab]
    return jnp.where(mask, jnp.take_along_axis(logprobs, targets[:, None], axis=-1)[:, 0], 0)


def planned_mebibytes(function: Callable[..., jax.Array], tokens: int, *, head_is_trained: bool) -> float:
    """Temporary memory of the sum of log-probs and its gradient."""
    shapes = (
        jax.ShapeDtypeStruct((tokens, _HIDDEN.value), jnp.float32),
        jax.ShapeDtypeStruct((_VOCABULARY.value, _HIDDEN.value), jnp.float32),
        jax.ShapeDtypeStruct((tokens,), jnp.int32),
        jax.ShapeDtypeStruct((tokens,), bool),
    )
    wanted = (0, 1) if head_is_trained else (0,)
    gradient = jax.jit(jax.value_and_grad(lambda *inputs: jnp.sum(function(*inputs)), argnums=wanted))
    plan = gradient.lower(*shapes).compile().memory_analysis()
    assert plan is not None
    return plan.temp_size_in_bytes / 2**20


def main(_: list[str]) -> None:
    """Prints one JSON line per row of the table."""
    for head_is_trained in (True, False):
        for tokens in TOKENS:
            planned = functools.partial(planned_mebibytes, tokens=tokens, head_is_trained=head_is_trained)
            naive = planned(naive_logprobs)
            row = {"head": "trained" if head_is_trained else "frozen", "tokens": tokens, "naive_mib": round(naive)}
            for chunk_size in CHUNKS:
                ours = planned(functools.partial(token_logprobs, chunk_size=chunk_size))
                row |= {f"chunk_{chunk_size}_mib": round(ours), f"chunk_{chunk_size}_ratio": round(naive / ours, 1)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    app.run(main)
