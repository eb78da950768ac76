"""Random and mutated code actions through the sandbox; README.md says what they showed.

python -m experiments.sandbox_fuzz.fuzz --actions=10000
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from tests.toolbox.random_actions import random_action
from tests.toolbox.sandbox_checks import (
    INPUTS,
    files_of_uids,
    pool,
    probe,
    processes_left,
    processes_of_uids,
    workers_of,
)

WALL_SECONDS = 1.5
SLACK_SECONDS = 5.0  # for the kill, on a machine that does other things too
ACTIONS_PER_EPISODE = 4


@dataclass
class Report:
    """What the actions came to; `problems` is what must be empty."""

    actions: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0
    probes: int = 0
    uids: set[int] = field(default_factory=set)


def _episodes(a_pool: SandboxPool, seeds: list[int], counts: list[int], report: Report, lock: threading.Lock) -> None:
    for seed, count in zip(seeds, counts, strict=True):
        rng = random.Random(seed)
        with a_pool.open(INPUTS, seed) as session:
            for _ in range(count):
                code = random_action(rng)
                started = time.monotonic()
                result = session.run(code)
                seconds = time.monotonic() - started
                with lock:
                    report.actions += 1
                    report.statuses[str(result.status)] += 1
                    report.slowest = max(report.slowest, seconds)
                    if result.status is Status.INFRA_ERROR or seconds > WALL_SECONDS + SLACK_SECONDS:
                        report.problems.append(
                            f"seed {seed}: {result.status} {seconds:.1f} s {result.text[:200]} {code!r}"
                        )


def _check(a_pool: SandboxPool, expected: object, report: Report) -> None:
    report.uids |= {worker.command.uid for worker in workers_of(a_pool)} - {0}
    report.probes += 1
    if probe(a_pool) != expected:
        report.problems.append(f"the probe differs after {report.actions} actions")
    if left := processes_left(a_pool):
        report.problems.append(f"processes left after {report.actions} actions: {left}")


def run_actions(actions: int, seed: int, workers: int) -> Report:
    """Run that many actions in episodes of four on `workers` threads, and look for what is left every 200."""
    report, lock = Report(), threading.Lock()
    counts = [ACTIONS_PER_EPISODE] * (actions // ACTIONS_PER_EPISODE) + [actions % ACTIONS_PER_EPISODE]
    seeds = [seed * 1_000_003 + number for number in range(len(counts))]
    with pool(wall_seconds=WALL_SECONDS, workers=workers, spares=1) as a_pool:
        expected = probe(a_pool)
        round_size = 50
        for start in range(0, len(counts), round_size):
            threads = []
            for number in range(workers):
                part = slice(start + number, start + round_size, workers)
                arguments = (a_pool, seeds[part], counts[part], report, lock)
                threads.append(threading.Thread(target=_episodes, args=arguments))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            _check(a_pool, expected, report)
    if left := processes_of_uids(report.uids):
        report.problems.append(f"processes left at the end: {left}")
    if files := files_of_uids(report.uids):
        report.problems.append(f"files left at the end: {files}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    started = time.monotonic()
    report = run_actions(options.actions, options.seed, options.workers)
    told = {
        "actions": report.actions,
        "statuses": dict(sorted(report.statuses.items())),
        "slowest_seconds": round(report.slowest, 2),
        "probes": report.probes,
        "problems": report.problems,
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(told, indent=2), flush=True)


if __name__ == "__main__":
    main()
