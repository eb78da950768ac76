"""The devices that a plan compiles for: those of a TPU slice that is elsewhere, a GPU that is elsewhere, or our own."""

import dataclasses
import os
import re

import jax

from regrpo_jax.errors import UserError
from regrpo_jax.plan.chips import CHIPS, Chip, chip_of


@dataclasses.dataclass(frozen=True)
class Target:
    """What is planned for.

    Attributes:
      devices: to compile for; they may hold nothing.
      platform: "tpu", "gpu" or "cpu".
      chip: None where nothing is known of the devices.
      compiled_elsewhere: the compiler is another than the devices', so that temporaries are a guess.
    """

    devices: list[jax.Device]
    platform: str
    chip: Chip | None
    compiled_elsewhere: bool = False


def target(topology: str) -> Target:
    """The devices of `config.plan.topology`.

    Args:
      topology: a TPU slice such as "v5e:2x4", which libtpu compiles for without one; one GPU such as "h200"; "" for
        the devices of this machine.
    Raises:
      UserError: there is no such slice, or libtpu is not installed.
    """
    if not topology:
        devices = jax.devices()
        return Target(devices, devices[0].platform, chip_of(devices[0].device_kind))
    name = topology.partition(":")[0]
    if name in CHIPS and not name.startswith("v"):
        if topology != name:
            raise UserError(f"config.plan.topology is {topology!r}; of GPUs elsewhere one is planned: {name!r}")
        return Target(jax.devices("cpu")[:1], "gpu", CHIPS[name], compiled_elsewhere=True)
    return _tpu_slice(topology, name)


def _tpu_slice(topology: str, name: str) -> Target:
    from jax.experimental import topologies  # of use here alone

    slices = ", ".join(name for name in CHIPS if name.startswith("v"))
    if name not in CHIPS or not re.fullmatch(r"\w+:\d+x\d+(x\d+)?", topology):
        raise UserError(
            f"config.plan.topology is {topology!r}; take a TPU slice, such as 'v5e:2x4' or 'v5p:2x2x2' (of {slices}), "
            f"a GPU ({', '.join(name for name in CHIPS if not name.startswith('v'))}), or '' for this machine"
        )
    # libtpu lets one process in at a time, for its TPU's sake; a plan touches none and may run beside a training.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    one_chip = set(topology.partition(":")[2].split("x")) == {"1"}  # libtpu takes four to a host where it is not told
    try:
        found = topologies.get_topology_desc(
            topology, "tpu", **({"chips_per_host_bounds": (1, 1, 1)} if one_chip else {})
        )
    except Exception as error:  # jaxlib's errors have no common type
        missing = "libtpu" in str(error) or "not found" in str(error)
        remedy = "pip install 'regrpo_jax[tpu]' (its libtpu compiles without a TPU)" if missing else "look at its shape"
        raise UserError(
            f"config.plan.topology is {topology!r}, which cannot be compiled for: {_first_line(error)}; {remedy}"
        ) from error
    return Target(list(found.devices), "tpu", CHIPS[name])


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
