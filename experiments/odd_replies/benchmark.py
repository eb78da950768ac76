"""What odd replies of an engine cost: the same episodes over a clean engine and over one that misbehaves now and then.

    python -m experiments.odd_replies.benchmark --tasks=700 --repeats=4

Episodes of three turns each, one request a turn, sixteen at a time, with the shipped retries and waits, over a stub on
loopback (`tests/agent/odd_engine.py`) that takes --seconds for a reply and answers each thousandth, or each hundredth,
request in one of its ways, one way after the other. The kinds take turns, so that a busy machine is busy for all.
SystemExit when an episode that met no lasting oddity is lost, or one that did would train.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from tests.agent.odd_engine import UNSCORED, WAYS, OddEngine, odd_serving
from tests.agent.scripted_episodes import completion, play, policy_at, task_of

KINDS = {"clean": 0, "one in 1,000": 1000, "one in 100": 100}
LASTING = UNSCORED | {"words in tool_calls", "finish content_filter"}  # what another try would not mend


def played(engine: OddEngine, address: str, tasks: int) -> dict[str, Any]:
    """One play of all tasks, checked."""
    engine.spoilt.clear()
    asked, begun = engine.asked, time.monotonic()
    rollouts = play(policy_at(address, first_wait=1.0), tasks)
    seconds = time.monotonic() - begun
    lasting = {task_of(body) for way, body in engine.spoilt if way in LASTING}
    for task, rollout in enumerate(rollouts):
        if bool(rollout.trained.any()) == (task in lasting) or (task not in lasting and not rollout.success):
            raise SystemExit(
                f"task {task}: trained {rollout.trained.any()}, lasting {task in lasting}: {rollout.error}"
            )
    return {
        "episodes a second": tasks / seconds,
        "requests": engine.asked - asked,
        "odd": len(engine.spoilt),
        "dropped": sum(rollout.dropped for rollout in rollouts),
        "unscored": sum(not rollout.scored for rollout in rollouts),
        "trained samples of them": sum(bool(rollouts[task].trained.any()) for task in lasting),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=700)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.1, help="that the engine takes for a reply")
    parser.add_argument("--out", type=Path, default=None, help="where the numbers go as JSON")
    chosen = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    met: set[str] = set()
    engine = OddEngine(completion, lambda number: "", seconds=chosen.seconds)
    with odd_serving(engine) as address:
        played(engine, address, 50)  # what is loaded at first is not timed
        for _ in range(chosen.repeats):
            for kind, every in KINDS.items():
                done = sum(engine.told.values())
                begun = engine.asked

                def way(number: int, every: int = every, done: int = done, begun: int = begun) -> str:
                    place = number - begun
                    return WAYS[(done + place // every) % len(WAYS)] if every and place % every == every // 2 else ""

                engine.odd = way
                found[kind].append(played(engine, address, chosen.tasks))
                met |= set(engine.told)
    clean = [each["episodes a second"] for each in found["clean"]]
    told: dict[str, Any] = {"ways met": f"{len(met - {''})} of {len(WAYS)}"}
    for kind, plays in found.items():
        speeds = [each["episodes a second"] for each in plays]
        ratios = [speed / other for speed, other in zip(speeds, clean, strict=True)]
        told[kind] = {name: sum(each[name] for each in plays) for name in plays[0] if name != "episodes a second"}
        told[kind] |= {
            "episodes a second": round(len(speeds) / sum(1 / speed for speed in speeds), 1),
            "of the clean speed": round(sum(1 / speed for speed in clean) / sum(1 / speed for speed in speeds), 3),
            "play by play": [round(ratio, 3) for ratio in ratios],
            "median": round(statistics.median(ratios), 3),
        }
    print(json.dumps(told, indent=2))
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
