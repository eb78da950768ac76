"""Core tests compare with plain Python numbers, so they run in float64 (float32 where a test asks for it)."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
