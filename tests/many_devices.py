"""Eight devices on any machine: the environment of a process whose CPU counts as eight of them."""

import os

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    # Eight devices wait for one another in threads of one pool. A device whose matrix product asks that same pool for
    # help may then wait for ever, so products stay in their own thread ..
    "--xla_cpu_multi_thread_eigen=false",
    # .. and a machine with two busy cores gets ten minutes, not forty seconds, to bring all eight to a meeting.
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
)


def many_devices(*flags: str) -> dict[str, str]:
    """This process's environment with the CPU as eight devices, and further XLA flags."""
    return os.environ | {"XLA_FLAGS": " ".join((*FLAGS, *flags)), "JAX_PLATFORMS": "cpu"}
