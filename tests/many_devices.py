"""Eight devices and more on any machine: a script in a process of its own, whose CPU counts as sixteen devices.

XLA runs the devices of a CPU in threads of one pool, as many as there are devices, and a device that waits for the
others in a collective keeps its thread. Where all would be used, a device that needs a second thread for a moment may
find none, and all wait for ever; it was seen twice on a busy machine, with eight devices of eight. So tests use half of
them, no program starts before the one before it has ended, and a script whose devices never met is run once more.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 16
FLAGS = (
    f"--xla_force_host_platform_device_count={DEVICES}",
    "--xla_cpu_multi_thread_eigen=false",
    # A busy machine gets three minutes, not forty seconds, to bring all devices to a meeting.
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=60",
    "--xla_cpu_collective_call_terminate_timeout_seconds=180",
    "--xla_backend_optimization_level=0",  # compiling is nearly all that a script does
)
_NEVER_MET = "rendezvous.cc"


def run_on_many_devices(script: str, *arguments: str, float64: bool = False) -> subprocess.CompletedProcess[str]:
    """The script's end, which the caller looks at."""
    environment = os.environ | {
        "XLA_FLAGS": " ".join(FLAGS),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
        "JAX_ENABLE_X64": str(int(float64)),
    }
    command = [sys.executable, "-c", script, *arguments]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        if done.returncode == 0 or _NEVER_MET not in done.stderr:
            break
    return done
