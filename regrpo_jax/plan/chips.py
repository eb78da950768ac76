"""What an accelerator can do at most, by its maker's data sheet."""

import dataclasses

from regrpo_jax.training.device_figures import BFLOAT16_PEAKS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      kind: `jax.Device.device_kind`.
      memory: bytes that a program may use, which is less than is there.
      memory_bandwidth: bytes of its memory in a second.
      link_bandwidth: bytes of a second that it can send to others of its slice or machine, all links together.
    """

    kind: str
    memory: float
    memory_bandwidth: float
    link_bandwidth: float

    @property
    def flops(self) -> float:
        """Of a second, products of bfloat16."""
        return BFLOAT16_PEAKS[self.kind]


# TPUs: the pages of Google Cloud on each version; memory as the compiler allows it. GPUs: the data sheets of the SXM
# forms, links are NVLink in one direction; memory less what the driver and the compiler keep.
CHIPS: dict[str, Chip] = {
    "v4": Chip("TPU v4", 30.75 * GIB, 1228e9, 300e9),
    "v5e": Chip("TPU v5 lite", 15.75 * GIB, 819e9, 200e9),
    "v5p": Chip("TPU v5", 95.74 * GIB, 2765e9, 600e9),
    "v6e": Chip("TPU v6 lite", 31.25 * GIB, 1640e9, 448e9),
    "a100": Chip("NVIDIA A100-SXM4-80GB", 79 * GIB, 2039e9, 300e9),
    "h100": Chip("NVIDIA H100 80GB HBM3", 79 * GIB, 3350e9, 450e9),
    "h200": Chip("NVIDIA H200", 139 * GIB, 4800e9, 450e9),
}


def chip_of(device_kind: str) -> Chip | None:
    """What is known of a device; None of a CPU and of kinds that stand in no table here."""
    return next((chip for chip in CHIPS.values() if chip.kind == device_kind), None)
