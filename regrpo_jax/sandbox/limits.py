"""What a process of an episode may take, set right after it is forked, and the descriptors it keeps."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Sequence

from regrpo_jax.sandbox.protocol import Bounds
from regrpo_jax.sandbox.settings import SandboxSettings

_CALL_HEADER_BYTES = 2**23
_HIGH = 128  # above all descriptors that a worker has


def call_bounds(settings: SandboxSettings) -> Bounds:
    """Of messages between an action and its tools: a value is as long as a file, or takes a quarter of the memory."""
    return Bounds(_CALL_HEADER_BYTES, max(settings.file_bytes, settings.memory_bytes // 4))


def set_limits(settings: SandboxSettings, address_space: int, processes: int) -> None:
    """Resource limits, hard ones too, so that nothing that runs here can raise them.

    address_space: bytes of the warm process that this one is a fork of. processes: that the user of the worker may
    have, all that stand beside this one counted.
    """
    for limit, value in (
        (resource.RLIMIT_AS, address_space + settings.memory_bytes),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, settings.max_open_files),
        (resource.RLIMIT_FSIZE, settings.file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def limit_cpu(seconds: int) -> None:
    """SIGXCPU, which kills, when this process has used `seconds` more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def lead_nowhere() -> None:
    """Let the three standard streams read and write nothing."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def only_keep(descriptors: Sequence[int]) -> list[int]:
    """Close every file descriptor but these, which become 3, 4 and so on; the three standard ones lead nowhere."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for descriptor in descriptors]
    lead_nowhere()
    kept = list(range(3, 3 + len(high)))
    for number, descriptor in zip(kept, high, strict=True):
        os.dup2(descriptor, number, inheritable=False)
    os.closerange(3 + len(high), 65_536)
    return kept
