"""An online run in which 5 % of the tool calls hang, crash or fail as infrastructure, beside one in which none does.

    python -m experiments.online_faults.benchmark

One run of the online stage over real tools. Each update is played twice from the same policy, tasks and seed, once over
tools that fail and once over tools that do not, in turns, so that whatever else the machine does weighs on both; the
run trains on what the failing ones gave. README.md has the numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from ml_collections import ConfigDict

from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.config.command_line import load_config
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.environments.task import Task
from regrpo_jax.main import run_config
from regrpo_jax.rollouts import update_groups
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import Counts
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.stages import online as online_stage
from tests.rollouts.injected_faults import FaultyEnvironment, untouched
from tests.rollouts.troubled_tools import LOADER

CLEAN, FAULTY = "clean", "faulty"


def online_config(chosen: argparse.Namespace) -> ConfigDict:
    """The online stage of configs/recovery.py, short."""
    config = load_config(Path(__file__).parents[2] / "configs" / "recovery.py")
    config.stages = ("online",)
    config.online.steps = chosen.updates + 1  # the first one compiles
    config.online.tasks, config.online.branches = chosen.tasks, chosen.branches
    config.checkpoint.every = 1000
    config.compilation_cache = chosen.cache
    return config


class Pairs:
    """Plays every collection of the stage twice and keeps the books; `collated` watches what becomes of them."""

    def __init__(self, environments: dict[str, Environment]) -> None:
        self._environments = environments
        self._tasks: dict[str, Task] = {}
        self.updates: list[dict[str, Any]] = []

    def collected(
        self, environment: Environment, policy: Any, states: Sequence[Any], settings: Any, **rest: Any
    ) -> Any:
        self._tasks = {state.task.id: state.task for state in states}
        names = (CLEAN, FAULTY) if len(self.updates) % 2 else (FAULTY, CLEAN)
        # Not timed: whoever comes first meets programs that are not compiled yet.
        collect_groups(self._environments[CLEAN], policy, states, settings, **rest | {"expected": {}, "journal": None})
        found: dict[str, tuple[list[RolloutGroup], Counts]] = {}
        told: dict[str, Any] = {}
        for name in names:
            begun = time.monotonic()
            fresh: dict[str, Any] = {"expected": {}}  # so that oracles are played by both
            if name == CLEAN:
                fresh["journal"] = None  # what is trained on is written down
            found[name] = collect_groups(self._environments[name], policy, states, settings, **rest | fresh)
            told[name] = _numbers(*found[name]) | {"seconds": time.monotonic() - begun}
        told["not the clean run's tokens"] = _differing(found[FAULTY][0], found[CLEAN][0])
        self.updates.append(told)
        return found[FAULTY]

    def collated(self, groups: Sequence[RolloutGroup], **rest: Any) -> OnlineBatch:
        """The batch, after a look at whose tokens train in it. AssertionError for one that was hit."""
        batch = collate_rollouts(groups, **rest)
        environment = self._environments[FAULTY]
        assert isinstance(environment, FaultyEnvironment)
        used = [group for group in groups if group.counted]
        trains = np.asarray(batch.segments != 0).any(axis=-1)  # [row, branch]
        for group, row in zip(used, trains, strict=False):
            for rollout, trained in zip(group.rollouts, row, strict=True):
                assert not (trained and rollout.dropped)
                assert not trained or untouched(environment, self._tasks[group.task_id], rollout)
        self.updates[-1]["branches that train"] = int(trains.sum())
        environment.seen.clear()
        return batch


def _numbers(groups: Sequence[RolloutGroup], counts: Counts) -> dict[str, Any]:
    calls = sum(rollout.tool_calls for group in groups for rollout in group.rollouts)
    return {
        "episodes": counts.episodes,
        "dropped": counts.dropped,
        "states refused": len(counts.refused),
        "tool calls of the rollouts": calls,
        "runs": counts.runs,
        "retried": counts.retried,
        "parts": counts.seconds,
    }


def _differing(groups: Sequence[RolloutGroup], clean: Sequence[RolloutGroup]) -> int:
    """Rollouts that count and are not, token by token, those of the clean run."""
    right = {(r.group, r.branch): r.tokens.tolist() for group in clean for r in group.rollouts}
    return sum(r.tokens.tolist() != right.get((r.group, r.branch)) for group in groups for r in group.counted)


def summary(updates: Sequence[dict[str, Any]], learning: Sequence[float], hits: Counter[str]) -> dict[str, Any]:
    """Episodes per second, of playing alone and with the updates, as totals over the run.

    Args:
      learning: seconds of each update that are not playing; the same for both.
    """
    told: dict[str, Any] = {"updates": len(updates), "hits": dict(hits), "seconds of learning": sum(learning)}
    rates = {}
    for name in (CLEAN, FAULTY):
        arms = [update[name] for update in updates]
        sums = {key: sum(arm[key] for arm in arms) for key in arms[0] if key != "parts"}
        sums["seconds in parts"] = {
            part: round(sum(arm["parts"].get(part, 0.0) for arm in arms), 2) for part in arms[0]["parts"]
        }
        kept = sums["episodes"] - sums["dropped"]
        rates[name] = kept / sums["seconds"], kept / (sums["seconds"] + sum(learning))
        told[name] = sums | {"episodes a second, playing": rates[name][0], "episodes a second": rates[name][1]}
    told["ratio, playing"] = rates[FAULTY][0] / rates[CLEAN][0]
    told["ratio"] = rates[FAULTY][1] / rates[CLEAN][1]
    told["ratio of each update, playing"] = [round(u[CLEAN]["seconds"] / u[FAULTY]["seconds"], 2) for u in updates]
    told["not the clean run's tokens"] = sum(update["not the clean run's tokens"] for update in updates)
    told["branches that train"] = sum(update["branches that train"] for update in updates)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--branches", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wall_seconds", type=float, default=10.0, help="the sandbox's limit of an action")
    parser.add_argument("--cache", default="", help="folder of compiled programs")
    chosen = parser.parse_args()
    config = online_config(chosen)
    sandbox = SandboxSettings(workers=chosen.workers, wall_seconds=chosen.wall_seconds)
    limits = EpisodeLimits(max_steps=config.agent.max_steps + 1)
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        kinds = {CLEAN: Environment, FAULTY: FaultyEnvironment}
        environments = {
            name: stack.enter_context(kind.start(sandbox, None, limits, loader=LOADER)) for name, kind in kinds.items()
        }
        faulty = environments[FAULTY]
        assert isinstance(faulty, FaultyEnvironment)
        faulty.rate = chosen.rate
        pairs = Pairs(environments)
        stack.enter_context(mock.patch.object(update_groups, "collect_groups", pairs.collected))
        stack.enter_context(mock.patch.object(online_stage, "collate_rollouts", pairs.collated))
        stack.enter_context(mock.patch.object(online_stage, "playing", lambda _: contextlib.nullcontext(faulty)))
        run_config(config, Path(work))
        lines = [json.loads(line) for line in (Path(work) / "metrics.jsonl").read_text().splitlines()]
    learning = [line["seconds"] - line["seconds/play"] for line in lines if line["stage"] == "online"]
    print(json.dumps(summary(pairs.updates[1:], learning[1:], faulty.hits), indent=2))


if __name__ == "__main__":
    main()
