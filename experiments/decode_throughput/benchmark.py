"""Tokens per second of batched greedy decoding: ours against `transformers.generate`, on one processor.

    python experiments/decode_throughput/benchmark.py [--repeats=7] [--hidden=64] [--layers=2] [--prompt=64]

One random Qwen2 text model is made with transformers, saved, and loaded into ours. Both continue the same prompts
greedily for the same number of tokens and must agree in every token before anything is timed. A timed call of either
runs the prompts as well. Calls alternate, and everything is called twice before timing, so that compilation and
first allocations are excluded.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
from absl import app, flags
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

from regrpo_jax.models.huggingface import load_policy
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.sampler import Prompt, generate, start
from regrpo_jax.models.token_choice import sampling_controls

_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed calls of each; the median is reported.")
_HIDDEN = flags.DEFINE_integer("hidden", 64, "Width of the model.")
_LAYERS = flags.DEFINE_integer("layers", 2, "Layers of the model.")
_VOCABULARY = flags.DEFINE_integer("vocabulary", 1024, "Size of the vocabulary.")
_BATCH = flags.DEFINE_integer("batch", 16, "Prompts decoded at once.")
_PROMPT = flags.DEFINE_integer("prompt", 64, "Tokens of a prompt.")
_NEW = flags.DEFINE_integer("new", 128, "Tokens decoded after each prompt.")
_THREADS = flags.DEFINE_integer("threads", os.cpu_count() or 1, "Threads of torch; jax takes all processors it sees.")

HEADS, KEY_VALUE_HEADS = 4, 2
PREFIX_MULTIPLE = 64  # prompts are padded on their left, as buckets pad them in a run


def make_theirs() -> Qwen2ForCausalLM:
    """A random model whose logits are far enough apart that rounding does not decide which is the largest."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=_VOCABULARY.value,
        hidden_size=_HIDDEN.value,
        intermediate_size=8 * (_HIDDEN.value * 11 // 32),
        num_hidden_layers=_LAYERS.value,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=_PROMPT.value + _NEW.value,
        initializer_range=0.1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config).eval()


def their_decoding(model: Qwen2ForCausalLM, tokens: np.ndarray) -> Callable[[], np.ndarray]:
    """() -> new tokens.  # [prompt, token]"""
    inputs = torch.tensor(tokens, dtype=torch.long)
    mask = torch.ones_like(inputs)

    def run() -> np.ndarray:
        new = model.generate(inputs, attention_mask=mask, do_sample=False, max_new_tokens=_NEW.value)
        return new[:, tokens.shape[1] :].numpy()

    return run


def our_decoding(folder: Path, tokens: np.ndarray) -> Callable[[], np.ndarray]:
    """() -> new tokens.  # [prompt, token]"""
    config, params = load_policy(folder, dtype="float32", param_dtype="float32", remat="none")
    functions, variables = policy_functions(config), {"params": params}
    batch, length = tokens.shape
    padding = -(length - 1) % PREFIX_MULTIPLE
    body = np.pad(tokens[:, :-1], ((0, 0), (padding, 0))).astype(np.int32)  # the last token leads the branch
    real = np.broadcast_to(np.arange(body.shape[1]) >= padding, body.shape).astype(np.int32)  # [prompt, token]
    order = np.maximum(np.arange(body.shape[1], dtype=np.int32) - padding, 0)
    positions = np.broadcast_to(order[:, None], (*body.shape, 3))
    prompt = Prompt(
        prefix=TokenBlock(body, real, positions, np.full_like(body, -1)),
        images=None,
        last_token=tokens[:, -1].astype(np.int32),
        next_position=np.full(batch, length, np.int32),
        draw_ids=np.arange(batch, dtype=np.int32),
    )
    greedy = sampling_controls(max_tokens=_NEW.value, stops=(), temperature=0.0)

    def run() -> np.ndarray:
        key = jax.random.key(0)
        decoding = start(functions, variables, prompt, key, branches=1, capacity=_NEW.value)
        samples, _ = generate(functions, variables, decoding, greedy)
        return np.asarray(samples.tokens[:, 0])

    return run


def seconds(run: Callable[[], np.ndarray]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main(_: list[str]) -> None:
    """Compares, then times in turns, then prints one JSON line."""
    logging.set_verbosity_error()
    torch.set_num_threads(_THREADS.value)
    tokens = np.random.default_rng(0).integers(0, _VOCABULARY.value, (_BATCH.value, _PROMPT.value))
    model = make_theirs()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours = our_decoding(Path(folder), tokens)
    theirs = their_decoding(model, tokens)
    expected, found = theirs(), ours()
    theirs(), ours()
    if not np.array_equal(expected, found):
        raise SystemExit(f"{np.sum(expected != found)} of {expected.size} tokens differ; nothing was timed")
    times = [(seconds(theirs), seconds(ours)) for _ in range(_REPEATS.value)]
    their_seconds, our_seconds = np.median(times, axis=0)
    print(
        json.dumps(
            {
                "hidden": _HIDDEN.value,
                "layers": _LAYERS.value,
                "vocabulary": _VOCABULARY.value,
                "batch": _BATCH.value,
                "prompt": _PROMPT.value,
                "new": _NEW.value,
                "torch_threads": _THREADS.value,
                "different_tokens": len(np.unique(found)),
                "transformers_seconds": round(float(their_seconds), 4),
                "our_seconds": round(float(our_seconds), 4),
                "transformers_tokens_per_second": round(expected.size / their_seconds),
                "our_tokens_per_second": round(expected.size / our_seconds),
                "ratio": round(float(their_seconds / our_seconds), 2),
                "ratio_of_fastest_calls": round(float(np.divide(*np.min(times, axis=0))), 2),
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
