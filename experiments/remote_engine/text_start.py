"""A directory to train a text policy from that transformers serves afterwards: a small Qwen2 of random weights.

    python -m experiments.remote_engine.text_start --records="runs/shop/records/corpus/*.jsonl" --out=runs/shop/start

The tiny preset has parts that no architecture of transformers has, so it cannot be served; this one has none of them.
The tokenizer is trained on the records. `generation_config.json` goes with the weights wherever they are exported.
"""

from __future__ import annotations

import argparse
import glob
import json
from pathlib import Path

import jax

from regrpo_jax.data.tokenizer import train_tokenizer
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import save_policy
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.records import load_clean


def architecture(vocab_size: int) -> PolicyConfig:
    """Qwen2 in small."""
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=320,
        num_layers=3,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        rope_theta=10_000.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", required=True, help="file or pattern of clean trajectories")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if not glob.glob(chosen.records):
        parser.error(f"--records={chosen.records}: no such file")
    texts = (f"{turn.role}\n{turn.content}" for record in load_clean(chosen.records) for turn in record.conversation)
    tokenizer = train_tokenizer(texts, vocab_size=600)
    config = architecture(len(tokenizer))
    params = jax.jit(policy_functions(config).init)(jax.random.key(chosen.seed))["params"]
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    save_policy(chosen.out, config, params, token_ids=ids)
    tokenizer.save_pretrained(chosen.out)
    sampling = {"do_sample": True, "top_k": 0}  # whether, and from how many, is the model's to say, not the request's
    (chosen.out / "generation_config.json").write_text(json.dumps(ids | sampling, indent=2) + "\n")


if __name__ == "__main__":
    main()
