"""Tool steps per second of the compact suite through the sandbox, opening and closing of episodes included.

python experiments/toolrepair_baselines/throughput.py [--tasks=900] [--workers=2] [--repeats=3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import BASELINES, LOADERS, make_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=900, help="tasks that the oracle plays, of all families in turn")
    parser.add_argument("--workers", type=int, default=2, help="sandboxed processes")
    parser.add_argument("--repeats", type=int, default=3, help="times that all are played")
    chosen = parser.parse_args()
    tasks = make_suite("test", chosen.tasks, 0, "compact")
    rates = []
    with Environment.start(SandboxSettings(workers=chosen.workers), loader=LOADERS["compact"]) as environment:
        run_episodes(environment, tasks[:50], BASELINES["oracle"])  # the workers are warm after this
        for _ in range(chosen.repeats):
            started = time.perf_counter()
            results = run_episodes(environment, tasks, BASELINES["oracle"])
            steps = sum(len(result.steps) for result in results)
            rates.append(steps / (time.perf_counter() - started))
    print(
        json.dumps(
            {
                "tasks": chosen.tasks,
                "workers": chosen.workers,
                "steps": steps,
                "solved": sum(result.success for result in results),
                "steps_per_second": [round(rate) for rate in rates],
                "median": round(statistics.median(rates)),
                "load_average": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    main()
