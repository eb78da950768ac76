"""Traces of chosen updates, written by `jax.profiler`: what ran when, on the host and on the devices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax


class Tracing:
    """Writes the trace of each update whose number is among `updates` to `folder`."""

    def __init__(self, updates: Iterable[int | str], folder: Path) -> None:
        self._updates, self._folder = set(map(int, updates)), folder

    def begin(self, number: int) -> None:
        """Before the batch of update `number` is made, or its episodes are played."""
        if number in self._updates:
            jax.profiler.start_trace(self._folder)

    def end(self, number: int, results: Any) -> None:
        """After it was asked for: waits for its results, if it is traced."""
        if number in self._updates:
            jax.block_until_ready(results)
            jax.profiler.stop_trace()
