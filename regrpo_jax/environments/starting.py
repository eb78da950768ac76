"""From `config.environment` to a place where tasks are played."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.toolset import ToolsetSettings


def start_environment(
    chosen: ConfigDict,
    loader: str,
    settings: ToolsetSettings | None = None,
    *,
    max_steps: int,
    hidden: Sequence[str] = (),
) -> Environment:
    """An environment with the tools of a loader, to be closed by the caller.

    chosen: `config.environment`. settings: of the tools. max_steps: turns of an episode. hidden: as in
    `SandboxSettings`. UserError, SandboxError as `Environment.start`.
    """
    sandbox = SandboxSettings(
        workers=chosen.workers,
        wall_seconds=chosen.wall_seconds,
        allow_unisolated=chosen.allow_unisolated,
        python_path=(os.getcwd(),) if settings is not None and (settings.user_tools or settings.world) else (),
        hidden=tuple(hidden),
    )
    return Environment.start(sandbox, settings, EpisodeLimits(max_steps=max_steps), loader=loader)
