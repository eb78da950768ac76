"""Where workers are, and what each of them takes there, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RaySettings:
    """Workers that Ray starts and watches.

    address: of a cluster, "HOST:PORT", or "auto" for the one that this machine belongs to; "" for what RAY_ADDRESS
    names, else a Ray of this machine alone, which ends with the run. cpus: that Ray sets aside for each worker.
    memory_gib: likewise, 0 for none. resources: further ones, of Ray's own kind. folder: where a worker works and finds
    the modules of a person's own, on its machine; "" for the path of the folder where the run was started.
    start_seconds: until all workers must be there; a cluster that grows by itself takes minutes.
    """

    address: str = ""
    cpus: float = 1.0
    memory_gib: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    start_seconds: float = 300.0
