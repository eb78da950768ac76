"""What devices do and what they can: operations a second, their share of the peak, memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

import jax

# `jax.Device.device_kind` -> dense products in bfloat16, operations a second of one device. TPUs: the pages of Google
# Cloud on each version ("Peak compute per chip (bf16)"; v5e and v6e call themselves lite). NVIDIA: the data sheets of
# the A100, H100, H200 and L4, without the sparsity that these double their figures with.
BFLOAT16_PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}


def device_figures(flops_per_second: float, devices: Sequence[Any]) -> dict[str, float]:
    """Of a line of metrics.

    Args:
      flops_per_second: that all devices did together, by the model's count.
      devices: `jax.Device`s, all of one kind.
    Returns:
      "flops_per_second"; "mfu" where the peak of the devices is known; "memory/peak_bytes" of the fullest device of
      this process since it began, or "memory/host_peak_bytes" of the process where devices tell nothing, as a CPU.
    """
    figures = {"flops_per_second": flops_per_second}
    peak = BFLOAT16_PEAKS.get(devices[0].device_kind)
    if peak is not None:
        figures["mfu"] = flops_per_second / (peak * len(devices))
    told = [stats for device in devices if (stats := _memory_of(device))]
    if told:
        figures["memory/peak_bytes"] = float(max(stats["peak_bytes_in_use"] for stats in told))
    else:
        figures["memory/host_peak_bytes"] = float(_host_peak_bytes())
    return figures


def _memory_of(device: Any) -> dict[str, int] | None:
    """What a device says of its memory; None where it is another process's, or says nothing."""
    if device.process_index != jax.process_index():
        return None
    stats = device.memory_stats()
    return stats if stats and "peak_bytes_in_use" in stats else None


def _host_peak_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux tells kibibytes
