"""Slurm: a batch script with one process a node, which has all GPUs of it; Slurm tells the processes of each other."""

import os
import shlex
import subprocess
from collections.abc import Sequence

from options import Options, needed, read_options, shared_workdir

NAMES = ("nodes", "gpus", "cpus", "time", "partition", "account", "folder", "job")
SECONDS_BEFORE_THE_END = 120  # for an update under way, and its checkpoint


def launch(arguments: Sequence[str]) -> int:
    """Submits the script."""
    options = read_options(arguments, NAMES, ("dry-run",))
    text = script(options)
    if "dry-run" in options.flags:
        print("sbatch <<'END'\n" + text + "END")
        return 0
    return subprocess.run([needed("sbatch", "submit from a login node of the cluster")], input=text.encode()).returncode


def script(options: Options) -> str:
    """The batch script, with a line break at its end."""
    shared_workdir(options.program)
    nodes, gpus = options.number("nodes"), options.number("gpus", least=0)
    settings = {
        "job-name": options.text("job", "regrpo_jax"),
        "nodes": nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": gpus or None,
        "cpus-per-task": options.number("cpus", 16),
        "time": options.text("time", "24:00:00", form=r"(\d+-)?\d+(:\d\d){0,2}"),
        "partition": options.text("partition", "") or None,
        "account": options.text("account", "") or None,
        "signal": f"TERM@{SECONDS_BEFORE_THE_END}",
        "output": "regrpo_jax-%j.txt",
        "open-mode": "append",
    }
    lines = ["#!/bin/bash", *(f"#SBATCH --{name}={value}" for name, value in settings.items() if value is not None)]
    lines += ["#SBATCH --requeue", "set -euo pipefail", f"cd {shlex.quote(options.text('folder', os.getcwd()))}"]
    if gpus:  # jax gives a task of Slurm one GPU, if it is not told otherwise
        lines.append(f"export JAX_LOCAL_DEVICE_IDS={','.join(map(str, range(gpus)))}")
    kind = "detect" if nodes > 1 else "one"
    program = [".venv/bin/python", "-m", "regrpo_jax.main", *options.program, f"--config.hosts.kind={kind}"]
    lines.append(f"exec srun --kill-on-bad-exit=0 {shlex.join(program)}")
    return "\n".join(lines) + "\n"
