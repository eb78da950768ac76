"""A tiny Qwen2-VL that transformers can serve: made from nothing, taught the form of an episode, exported.

    python -m experiments.remote_engine.checkpoint --workdir=runs/served --steps=250

The tiny preset has layers that transformers does not know, so this is a policy of Qwen2-VL's own architecture. It
learns to call the tools of the compact suite and not much more: what is shown is the way over HTTP, not how good the
policy is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerBase

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from regrpo_jax.engine.demonstrations import write_demonstrations
from regrpo_jax.main import run_config
from regrpo_jax.models.config import PolicyConfig, VisionConfig, sectioned_axes
from regrpo_jax.models.huggingface import save_policy
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.records import load_clean

FAMILIES = ("moved", "service", "colour")
SMALLEST, LARGEST = 4 * 28 * 28, 16 * 28 * 28  # pixels of a picture


def architecture(vocab_size: int) -> PolicyConfig:
    """Qwen2-VL in small."""
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=320,
        num_layers=3,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        rope_theta=10_000.0,
        rotary_axes=sectioned_axes((4, 6, 6)),
        vision=VisionConfig(depth=2, embed_dim=64, num_heads=2, intermediate_size=128),
    )


def write_processor(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """What transformers needs besides weights: the tokenizer, how pictures become pixels, and how to sample.

    `transformers serve` passes a temperature on, but whether anything is sampled at all is the model's to say.
    """
    tokenizer.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": SMALLEST, "longest_edge": LARGEST}, "patch_size": 14, "merge_size": 2}
    image = sizes | {"temporal_patch_size": 2, "image_processor_type": "Qwen2VLImageProcessor"}
    video = sizes | {"temporal_patch_size": 2, "video_processor_type": "Qwen2VLVideoProcessor"}
    files = {
        "preprocessor_config.json": image | {"processor_class": "Qwen2VLProcessor"},
        "video_preprocessor_config.json": video,
        "generation_config.json": {
            "do_sample": True,
            "top_k": 0,  # else transformers cuts the distribution off after 50 tokens
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def write_start(folder: Path, demonstrations: str, seed: int) -> None:
    """The directory that training starts from: random weights, a tokenizer of the demonstrations."""
    texts = (f"{turn.role}\n{turn.content}" for record in load_clean(demonstrations) for turn in record.conversation)
    tokenizer = train_tokenizer(texts, vocab_size=1200)
    config = architecture(len(tokenizer))
    params = jax.jit(policy_functions(config).init)(jax.random.key(seed))["params"]
    ids = {
        "image_token_id": IMAGE_TOKEN,
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "eos_token_id": "<|im_end|>",
        "pad_token_id": "<|endoftext|>",
    }
    save_policy(folder, config, params, token_ids={name: tokenizer.convert_tokens_to_ids(t) for name, t in ids.items()})
    write_processor(folder, tokenizer)


def training(chosen: argparse.Namespace, start: Path, demonstrations: str) -> ConfigDict:
    """A supervised stage and the export of its weights."""
    config = base_config()
    config.stages = ("sft",)
    config.seed = chosen.seed
    config.model.path = str(start)
    config.data.clean = demonstrations
    config.data.pixels = (SMALLEST, LARGEST)
    config.data.failed_turns = "train"  # they fail on purpose
    config.sft.clean_ratio = 1.0
    config.sft.steps = chosen.steps
    config.sft.learning_rate = 3e-3
    config.sft.batch_rows = 16
    config.sft.row_length = 256
    config.sft.row_patches = 128
    config.log_every = 25
    config.export_weights = True
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="the checkpoint is <workdir>/run/model")
    parser.add_argument("--episodes", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    folder, start = chosen.workdir / "demonstrations", chosen.workdir / "start"
    if not folder.exists():
        write_demonstrations(folder, chosen.episodes, chosen.seed, families=FAMILIES)
    demonstrations = str(folder / "demonstrations-*.jsonl")
    if not start.exists():
        write_start(start, demonstrations, chosen.seed)
    run_config(training(chosen, start, demonstrations), chosen.workdir / "run")


if __name__ == "__main__":
    main()
