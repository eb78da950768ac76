"""One arm of the recovery comparison: a warm-started policy, online training or none, and held-out tasks played.

    python -m experiments.recovery.arms --warm=runs/warm_start --out=runs/arms/regrpo-0-0 --algorithm=regrpo --seed=0

`--algorithm` is `sft` (no training), `regrpo` or `grpo`; `--seconds` stops the training at that time, for comparisons
at equal time. Writes `played.json`: per task of the split success, failure, tokens, for every seed of the sampling.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.recovery import warm_start
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.environments.toolrepair import make_suite
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.online_stage import collect_settings, playing, run_online, sampler_policy
from regrpo_jax.rollouts.rollout_metrics import by_family, rollout_metrics, rollouts_of
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import device_mesh

Variables = dict[str, Any]
TEST_SEED = 7
AT_ONCE = 64  # tasks of one collection


def online_config(warm: ConfigDict, chosen: argparse.Namespace) -> ConfigDict:
    """The recipe of the online stage, on the policy of the warm start."""
    config = warm.copy_and_resolve_references()
    config.stages = ("online",)
    config.seed = chosen.seed
    config.model.dtype = chosen.dtype
    config.data.prefix_buckets = (64, 128)
    config.data.branch_buckets = (128, 192, 256)
    config.agent.turn_tokens = 80
    config.agent.episode_tokens = 240
    config.agent.retries = chosen.retries
    config.online.algorithm = "grpo" if chosen.algorithm == "grpo" else "regrpo"
    config.online.steps = chosen.steps
    config.online.families = tuple(chosen.families)
    config.online.tasks = chosen.tasks
    config.online.branches = chosen.branches
    config.online.learning_rate = chosen.learning_rate
    config.online.final_learning_rate_share = 1.0
    config.online.warmup_steps = 2
    config.online.eta = chosen.eta
    config.online.surprises = 0.7
    config.checkpoint.every = 1000
    return config


def play(context: RunContext, variables: Variables, reader: ConversationReader, chosen: argparse.Namespace) -> Any:
    """Held-out tasks at temperature 1: per task and seed what came of it, and the shares of all."""
    config = context.config
    tasks = make_suite("test", chosen.played, TEST_SEED, "compact", chosen=tuple(chosen.families), surprises=0.7)
    settings = collect_settings(config, context.workdir, branches=chosen.samples)
    policy = sampler_policy(context, reader, variables, temperature=chosen.temperature)
    groups, expected = [], {}
    with playing(config) as environment:
        for start in range(0, len(tasks), AT_ONCE):
            found, _ = collect_groups(environment, policy, tasks[start : start + AT_ONCE], settings, seed=991,
                                      first_group=start, expected=expected)  # fmt: skip
            groups += found
    rows = [
        {
            "task": group.task_id,
            "family": group.family,
            "error_type": group.error_type,
            "success": [bool(rollout.success) for rollout in group.rollouts],
            "first": [bool(rollout.first_attempt_success) for rollout in group.rollouts],
            "failed": [bool(rollout.failed) for rollout in group.rollouts],
            "dropped": [bool(rollout.dropped) for rollout in group.rollouts],
            "reflection_tokens": [rollout.reflection_tokens() for rollout in group.rollouts],
            "tokens": [int((rollout.labels >= 3).sum()) for rollout in group.rollouts],
        }
        for group in groups
    ]
    return {"metrics": rollout_metrics(rollouts_of(groups)), "families": by_family(groups), "tasks": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=Path, required=True, help="workdir of experiments.recovery.warm_start")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--algorithm", choices=("sft", "regrpo", "grpo"), default="regrpo")
    parser.add_argument("--sft_as", choices=("regrpo", "grpo"), default="regrpo", help="how `sft` plays")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--branches", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--eta", type=float, default=0.1)
    parser.add_argument("--retries", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--families", nargs="+", default=warm_start.FAMILIES)
    parser.add_argument("--played", type=int, default=256, help="held-out tasks")
    parser.add_argument("--samples", type=int, default=2, help="episodes of each")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--cache", default="", help="folder of compiled programs")
    parser.add_argument("--warm_steps", type=int, default=700, help="supervised steps of the warm start")
    chosen = parser.parse_args()
    warm = _warm(chosen)
    functions, variables, reader = warm_start.trained(warm)
    algorithm = chosen.algorithm
    if algorithm == "sft":
        chosen.algorithm = chosen.sft_as
    config = online_config(warm_start.warm_start_config(warm), chosen)
    chosen.out.mkdir(parents=True, exist_ok=True)
    writer = MetricsWriter(chosen.out)
    context = RunContext(config, chosen.out, functions, device_mesh(), reader.renderer.image_token_id, writer)
    begun = time.monotonic()
    if algorithm != "sft":
        variables = run_online(context, variables, reader, after={})
    trained = time.monotonic() - begun
    told = play(context, variables, reader, chosen)
    writer.close()
    told |= {"algorithm": algorithm, "seed": chosen.seed, "seconds": trained, "arguments": _plain(vars(chosen))}
    (chosen.out / "played.json").write_text(json.dumps(told) + "\n")
    shown = {name: round(value, 3) for name, value in told["metrics"].items() if value is not None}
    print(f"{algorithm} trained {trained:.0f} s: {shown}")
    for family, values in told["families"].items():
        print(f"  {family}: success {values['success']:.2f}, recovery {_text(values['recovery'])}")


def _warm(chosen: argparse.Namespace) -> argparse.Namespace:
    """The arguments of the warm start, which is complete."""
    return argparse.Namespace(
        workdir=chosen.warm, seed=0, episodes=0, families=chosen.families, steps=chosen.warm_steps, rows=28,
        row_length=256, learning_rate=2e-3, dtype=chosen.dtype, workers=2, cache=chosen.cache,
    )  # fmt: skip


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | str | list) else str(value) for name, value in values.items()
    }


def _text(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.2f}"


if __name__ == "__main__":
    main()
