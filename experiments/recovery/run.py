"""All runs of the recovery comparison, one after the other; a run that is complete, or was stopped, goes on.

    python -m experiments.recovery.run --out=runs/recovery [--seeds 5] [--arms regrpo grpo ..]

warm-N            configs/warm_start.py with seed N: the data engine and the supervised stage, from fresh weights
thinking-N        the same for the control that may think: what a reflection says stands in the thought of the retry
ARM-N             configs/recovery.py with seed N, from warm start N modulo the number of warm starts
raw/              what is kept of them: each task's outcomes (ARM-N.POLICY.jsonl), what training cost (training.jsonl)

Every arm of a seed meets the same training tasks and plays the same tasks of the test split afterwards. All start from
the same weights but the thinking control, whose weights saw the same episodes, told as thoughts, in as many tokens.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from regrpo_jax.config.command_line import load_config

# Offline ReGRPO on executed near misses of the same families.
OFFLINE = {
    "stages": '("recovery", "rl", "recovery")',
    "optimizer.trainable": "full",
    "rl.steps": "60",
    "rl.groups_per_batch": "16",
    "rl.learning_rate": "1e-4",
}
# What starts from the same weights as `regrpo` has played the same before.
AFTER = {"stages": '("online", "recovery")'}
# Arm -> what it changes in configs/recovery.py. An arm with "of" goes on from a copy of that arm's run, one with "warm"
# starts from another warm start.
ARMS: dict[str, dict[str, str]] = {
    "regrpo": {},
    "grpo_thinking": {"warm": "thinking", "online.algorithm": "grpo"},
    "grpo": {"online.algorithm": "grpo"},
    "grpo_longer": {"of": "grpo", "online.algorithm": "grpo"},
    "grpo_two_retries": {"online.algorithm": "grpo", "agent.retries": "2"},
    "first_condition": AFTER | {"online.credit": "condition"},
    "first_shared": AFTER | {"online.credit": "shared"},
    "eta_0": AFTER | {"objective.eta": "0"},
    "eta_0.05": AFTER | {"objective.eta": "0.05"},
    "eta_0.3": AFTER | {"objective.eta": "0.3"},
    "curriculum_none": OFFLINE | {"data.curriculum": "none"},
    "curriculum_linear": OFFLINE | {"data.curriculum": "linear"},
    "curriculum_success-paced": OFFLINE | {"data.curriculum": "success-paced"},
}
# Warm start -> what it changes in configs/warm_start.py.
WARM = {
    "warm": {},
    "thinking": {"engine.diagnosis": "thought", "online.algorithm": "grpo", "recovery.bare_control": "False"},
}
LONGER = 1.5  # times the updates, so that it has used no less time and no fewer tokens than ReGRPO
SUMMED = {"seconds": "seconds", "play_seconds": "seconds/play", "tokens": "rollouts/sampled_tokens"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--warm_starts", type=int, default=3)
    parser.add_argument("--updates", type=int, default=40)
    chosen, options = parser.parse_known_args()
    made: set[Path] = set()
    for seed in chosen.seeds:
        number = seed % chosen.warm_starts
        for arm in chosen.arms:
            fields = ARMS[arm] | {"seed": str(seed)}
            kind = fields.pop("warm", "warm")
            warm = chosen.out / f"{kind}-{number}"
            if warm not in made:
                _main(chosen.out, "warm_start", warm, WARM[kind] | {"seed": str(number)}, [])
                keep(warm, chosen.out / "raw")
                made.add(warm)
            fields["model.path"] = str(warm / "model")
            steps, workdir = chosen.updates, chosen.out / f"{arm}-{seed}"
            if "data.curriculum" in fields:
                fields["data.rot"] = str(_records(chosen.out))
            if source := fields.pop("of", ""):
                steps = round(LONGER * steps)
                if not workdir.exists():
                    shutil.copytree(chosen.out / f"{source}-{seed}", workdir)
            _main(chosen.out, "recovery", workdir, fields | {"online.steps": str(steps)}, options)
            keep(workdir, chosen.out / "raw")


def _records(out: Path) -> Path:
    """Executed RoT records for all offline arms, from the data engine."""
    families = load_config(Path("configs/recovery.py")).suite.families
    fields = {"engine.records": "960", "suite.families": repr(families), "stages": '("data",)'}
    _main(out, "build_rot", out / "rot", fields, [])
    return out / "rot" / "corpus" / "rot-*.jsonl"


def _main(out: Path, config: str, workdir: Path, fields: dict[str, str], options: list[str]) -> None:
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "regrpo_jax.main", f"--config=configs/{config}.py", f"--workdir={workdir}"]
    command += [*overrides, f"--config.compilation_cache={out / 'compiled'}", *options]
    print(" ".join(command[1:]), flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "log.txt").open("a") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"this run failed; {workdir / 'log.txt'} says why")


def keep(workdir: Path, raw: Path) -> None:
    """Copies what a run's numbers can be made from again."""
    raw.mkdir(exist_ok=True)
    for rows in sorted(workdir.glob("recovery/*/tasks.jsonl")):
        shutil.copy(rows, raw / f"{workdir.name}.{rows.parent.name}.jsonl")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if line["stage"] == "online"]
    if updates:
        told = {"run": workdir.name, "updates": len(updates)}
        told |= {name: round(sum(line[key] for line in updates), 1) for name, key in SUMMED.items()}
        path = raw / "training.jsonl"
        others = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in others if json.loads(line)["run"] != workdir.name]
        path.write_text("\n".join([*kept, json.dumps(told)]) + "\n")


if __name__ == "__main__":
    main()
