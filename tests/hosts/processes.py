"""Several processes of one run on this machine, each with some simulated devices."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--xla_cpu_multi_thread_eigen=false",
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=60",
    "--xla_cpu_collective_call_terminate_timeout_seconds=300",
    "--xla_backend_optimization_level=0",  # compiling is nearly all that such a run does
)
HANGS = 900  # seconds, as a guard: a busy machine is given all it needs


@dataclass(frozen=True)
class Ended:
    """status, what was written to the standard output, and to the standard error."""

    status: int
    out: str
    words: str


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def begin(
    arguments: Sequence[str],
    *,
    processes: int,
    devices: int,
    module: str = "regrpo_jax.main",
    float64: bool = False,
    last: Sequence[str] = (),
) -> list[subprocess.Popen[str]]:
    """Starts the processes; devices: of each. last: further arguments of the last one."""
    environment = os.environ | {
        "XLA_FLAGS": " ".join((f"--xla_force_host_platform_device_count={devices}", *FLAGS)),
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(int(float64)),
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
    }
    plain = ["--config.hosts.kind=plain", f"--config.hosts.coordinator=127.0.0.1:{free_port()}"]
    several = [*plain, f"--config.hosts.processes={processes}"] if processes > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments, *several, *([f"--config.hosts.index={index}"] * bool(several)),
             *(last if index == processes - 1 else ())],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(processes)
    ]  # fmt: skip


def ended(started: Sequence[subprocess.Popen[str]]) -> list[Ended]:
    """Waits for all of them."""
    try:
        told = [process.communicate(timeout=HANGS) for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(process.returncode, *words) for process, words in zip(started, told, strict=True)]
