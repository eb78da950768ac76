"""One pool of warm workers with the compact tools for all tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS


@pytest.fixture(scope="session")
def compact_environment() -> Iterator[Environment]:
    """Episodes with the compact tools."""
    sandbox = SandboxSettings(workers=2, wall_seconds=5.0)
    with Environment.start(sandbox, None, EpisodeLimits(max_steps=32), loader=LOADERS["compact"]) as environment:
        yield environment
