"""What a slow tool costs: episodes a second with a tool that answers 2 s late in 5 % of its calls, and without.

    python -m experiments.slow_tool.benchmark [--episodes=64] [--workers=16] [--patience=0.1] [--rounds=3]

The policy that ships plays different tasks of ToolRepair, compact, one episode each, all together. Each round plays
them three times, one after the other: fast tools; slow tools, all wait; slow tools, episodes are patient for so long.
Nothing is compiled in what is timed. Prints a JSON line.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import app, flags

from regrpo_jax.config.command_line import load_config
from regrpo_jax.data.corpus import Corpus
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.run.model_defaults import with_model_defaults
from regrpo_jax.run.starting_policy import starting_policy
from regrpo_jax.stages.online import collect_settings
from regrpo_jax.suites.find import suite_of
from regrpo_jax.training.parallel import device_mesh

_EPISODES = flags.DEFINE_integer("episodes", 64, "Played together.")
_WORKERS = flags.DEFINE_integer("workers", 16, "Sandboxed processes.")
_PATIENCE = flags.DEFINE_float("patience", 0.1, "Seconds that episodes wait for the actions of others.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "The median of so many is told; one more is played first.")

CONFIG = Path(__file__).parents[2] / "configs" / "recovery.py"
SLOW = "experiments.slow_tool.slow_tools:load_slow_tools"


def main(_: list[str]) -> None:
    """Plays in turns, then tells."""
    config = load_config(CONFIG)
    config.environment.workers = _WORKERS.value
    config = with_model_defaults(config)
    suite = suite_of(config)
    tasks = suite.tasks("test", _EPISODES.value, 0)
    times: dict[str, list[float]] = {"fast": [], "slow, all wait": [], "slow, patient": []}
    played: dict[str, list[int]] = {name: [] for name in times}
    with tempfile.TemporaryDirectory() as folder:
        functions, variables, reader = starting_policy(
            config, Corpus([], [], [], False), Path(folder), device_mesh(model=1), resuming=False
        )
        buckets = tuple(config.data.prefix_buckets)
        policy = SamplerPolicy(functions, variables, reader, buckets, max(config.data.branch_buckets))
        patient = collect_settings(config, Path(folder), reader, branches=1)
        all_wait = CollectSettings(**{**vars(patient), "patience": None})
        patient = CollectSettings(**{**vars(patient), "patience": _PATIENCE.value})
        tools, steps = suite.tools, config.agent.max_steps + 1
        with (
            start_environment(config.environment, tools.loader, tools.settings, max_steps=steps) as fast,
            start_environment(config.environment, SLOW, tools.settings, max_steps=steps) as slow,
        ):
            for number in range(_ROUNDS.value + 1):
                for name, environment, settings in (
                    ("fast", fast, all_wait),
                    ("slow, all wait", slow, all_wait),
                    ("slow, patient", slow, patient),
                ):
                    seconds, counts = _timed(environment, policy, tasks, settings)
                    print(f"{name}: {seconds:.1f} s, {counts}", flush=True)
                    if number:
                        times[name].append(seconds)
                        played[name].append(counts["runs"])
    medians = {name: statistics.median(values) for name, values in times.items()}
    shares = {name: round(seconds / medians["fast"], 3) for name, seconds in medians.items()}
    print(json.dumps({"episodes": len(tasks), "workers": _WORKERS.value, "patience": _PATIENCE.value,
                      "seconds": medians, "of the fast ones": shares, "runs": played}))  # fmt: skip


def _timed(
    environment: Environment, policy: SamplerPolicy, tasks: list, settings: CollectSettings
) -> tuple[float, dict[str, Any]]:
    begin = time.perf_counter()
    _, counts = collect_groups(environment, policy, tasks, settings, seed=0)
    seconds = time.perf_counter() - begin
    return seconds, {
        "actions": counts.actions,
        "runs": counts.runs,
        "retried": counts.retried,
        "dropped": counts.dropped,
        "seconds": {part: round(taken, 1) for part, taken in counts.seconds.items()},
    }


if __name__ == "__main__":
    app.run(main)
