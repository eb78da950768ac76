"""What a line of metrics says of devices that are not here."""

from types import SimpleNamespace
from typing import Any

import jax
import pytest

from regrpo_jax.training.device_figures import device_figures


def device(kind: str, stats: dict[str, int] | None) -> Any:
    return SimpleNamespace(device_kind=kind, process_index=0, memory_stats=lambda: stats)


def test_a_known_device_has_its_share_of_the_peak_and_its_fullest_memory() -> None:
    devices = [device("TPU v4", {"peak_bytes_in_use": 100}), device("TPU v4", {"peak_bytes_in_use": 300})]
    assert device_figures(275e12, devices) == {
        "flops_per_second": 275e12,
        "mfu": pytest.approx(0.5),
        "memory/peak_bytes": 300.0,
    }


def test_an_unknown_device_has_none_and_the_process_tells_its_own_memory() -> None:
    figures = device_figures(1e9, jax.devices()[:1])
    assert set(figures) == {"flops_per_second", "memory/host_peak_bytes"}
    assert 2**26 < figures["memory/host_peak_bytes"] < 2**40
