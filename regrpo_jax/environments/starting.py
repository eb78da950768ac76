"""From `config.environment` to a place where tasks are played."""

from __future__ import annotations

from ml_collections import ConfigDict

from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.sandbox.settings import SandboxSettings


def start_environment(chosen: ConfigDict, loader: str, *, max_steps: int) -> Environment:
    """An environment with the tools of a loader, to be closed by the caller.

    chosen: `config.environment`, of which workers, wall_seconds and allow_unisolated count. max_steps: turns of an
    episode. UserError, SandboxError as `Environment.start`.
    """
    sandbox = SandboxSettings(
        workers=chosen.workers, wall_seconds=chosen.wall_seconds, allow_unisolated=chosen.allow_unisolated
    )
    return Environment.start(sandbox, None, EpisodeLimits(max_steps=max_steps), loader=loader)
