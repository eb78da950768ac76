"""One machine: one process with all its devices, or several that share them out, over an address of this machine."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from options import LaunchError, Options, read_options

OWN_PYTHON = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "python"
NAMES = ("processes", "gpus", "port")


def launch(arguments: Sequence[str]) -> int:
    """Runs the processes until all have ended; the status of the first that failed."""
    options = read_options(arguments, NAMES, ("dry-run",))
    commands = processes(options)
    if "dry-run" in options.flags:
        for environment, command in commands:
            told = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
            print(" ".join([*told, shlex.join(command)]))
        return 0
    started = [subprocess.Popen(command, env=os.environ | dict(environment)) for environment, command in commands]

    def pass_on(number: int, frame: Any) -> None:
        for process in started:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    statuses = [process.wait() for process in started]
    return next((status if status > 0 else 1 for status in statuses if status), 0)


def processes(options: Options) -> list[tuple[Mapping[str, str], list[str]]]:
    """What is put into the environment of each process, and its command."""
    count, gpus, port = options.number("processes", 1), options.number("gpus", 0, least=0), options.number("port", 8476)
    python = OWN_PYTHON if OWN_PYTHON.exists() else Path(sys.executable)
    program = [str(python), "-m", "regrpo_jax.main", *options.program]
    if count == 1:
        return [({"CUDA_VISIBLE_DEVICES": _devices(0, gpus)} if gpus else {}, program)]
    if gpus % count:
        raise LaunchError(f"--gpus={gpus} are not shared out evenly by --processes={count}; choose a divisor of {gpus}")
    found = []
    for index in range(count):
        here = gpus // count
        environment = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
        if here:
            environment["JAX_LOCAL_DEVICE_IDS"] = _devices(index * here, here)
        found.append((environment, [*program, "--config.hosts.kind=plain"]))
    return found


def _devices(first: int, count: int) -> str:
    return ",".join(str(first + number) for number in range(count))
