"""A warm start for recovery, from nothing: demonstrations, a tiny policy trained on them, and what it can do then.

    python -m experiments.recovery.warm_start --workdir=runs/warm_start

Plays and writes the demonstrations, trains with the project's own supervised stage, and measures on tasks of the
validation split how probable each skill's right text is (`skills`) and how many episodes succeed (`episodes`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments.recovery.episodes import play_episodes
from experiments.recovery.skills import print_table, skill_table
from regrpo_jax.base_config import base_config
from regrpo_jax.data.corpus import Corpus, clean_examples
from regrpo_jax.data.examples import ConversationReader, Example
from regrpo_jax.data.tokenizer import train_tokenizer
from regrpo_jax.engine.demonstrations import write_demonstrations
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records import load_clean
from regrpo_jax.run_record import prepare_workdir
from regrpo_jax.starting_policy import Variables, starting_policy
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.stages import run_sft

FAMILIES = ("moved", "service", "search", "region", "colour", "sheet")
VALIDATION_SEED = 1_000_000  # tasks are held out by their names as well, see `words.split_of`


def warm_start_config(chosen: argparse.Namespace) -> ConfigDict:
    """The recipe."""
    config = base_config()
    config.stages = ("sft",)
    config.seed = chosen.seed
    config.log_every = 25
    config.compilation_cache = chosen.cache
    config.data.clean = str(chosen.workdir / "demonstrations" / "demonstrations-*.jsonl")
    config.model.vocab_size = 1300
    config.model.dtype = chosen.dtype
    config.sft.clean_ratio = 1.0
    config.sft.steps = chosen.steps
    config.sft.learning_rate = chosen.learning_rate
    config.sft.warmup_steps = 50
    config.sft.weight_decay = 0.01
    config.sft.final_learning_rate_share = 0.05
    config.sft.batch_rows = chosen.rows
    config.sft.row_length = chosen.row_length
    config.sft.row_patches = 16 * (chosen.row_length // 40)
    config.checkpoint.every = 100
    return config


def demonstrations(chosen: argparse.Namespace) -> Corpus:
    """Played once; a folder that is there is taken as it is."""
    folder = chosen.workdir / "demonstrations"
    if not folder.exists():
        started = time.monotonic()
        write_demonstrations(folder, chosen.episodes, chosen.seed, families=chosen.families, workers=chosen.workers)
        print(f"demonstrations: {chosen.episodes} episodes in {time.monotonic() - started:.0f} s", flush=True)
    return Corpus(load_clean(str(folder / "demonstrations-*.jsonl")), [], [], True)


def write_tokenizer(corpus: Corpus, folder: Path, vocab_size: int) -> None:
    """Trained on whole turns, so that roles and what follows them become phrases."""

    def texts() -> Iterator[str]:
        for record in corpus.clean:
            yield from (f"{turn.role}\n{turn.content}" for turn in record.conversation)

    if not folder.exists():
        train_tokenizer(texts(), vocab_size=vocab_size).save_pretrained(folder)


def trained(chosen: argparse.Namespace) -> tuple[PolicyFunctions, Variables, ConversationReader]:
    """The policy after the supervised stage; a stage that was stopped goes on."""
    config = warm_start_config(chosen)
    prepare_workdir(chosen.workdir)
    corpus = demonstrations(chosen)
    write_tokenizer(corpus, chosen.workdir / "tokenizer", config.model.vocab_size)
    mesh = device_mesh()
    functions, variables, reader = starting_policy(config, corpus, chosen.workdir, mesh, resuming=True)
    print(f"parameters: {sum(leaf.size for leaf in jax.tree.leaves(variables)):,}, "
          f"vocabulary {functions.config.vocab_size}", flush=True)  # fmt: skip
    context = RunContext(
        config, chosen.workdir, functions, mesh, reader.renderer.image_token_id, MetricsWriter(chosen.workdir)
    )

    def examples() -> tuple[list[Example], list[Example]]:
        started = time.monotonic()
        made = clean_examples(corpus.clean, reader, config)
        lengths = [len(example.tokens) for example in made]
        print(f"examples: {len(made)}, mean length {sum(lengths) / len(lengths):.1f}, longest {max(lengths)}, "
              f"tokens {sum(lengths):,}, {time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
        return made, []

    started = time.monotonic()  # the examples are made in it
    variables = run_sft(context, variables, examples, after={})
    print(f"sft: {time.monotonic() - started:.0f} s", flush=True)
    context.writer.close()
    return functions, variables, reader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=10_000, help="demonstrations, beside which there are drills")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--row_length", type=int, default=160)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", default="", help="folder of compiled programs")
    parser.add_argument("--probes", type=int, default=360, help="validation tasks whose skills are measured")
    parser.add_argument("--played", type=int, default=360, help="validation tasks that are played")
    chosen = parser.parse_args()
    functions, variables, reader = trained(chosen)
    told = skill_table(functions, variables, reader, chosen.workdir, chosen.families, chosen.probes, VALIDATION_SEED)
    print_table(told)
    found = {
        temperature: play_episodes(functions, variables, reader, chosen.workdir, chosen.families, chosen.played,
                                   VALIDATION_SEED + 1, temperature)
        for temperature in (0.0, 1.0)
        if chosen.played
    }  # fmt: skip
    (chosen.workdir / "skills.json").write_text(json.dumps({"skills": told, "episodes": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
