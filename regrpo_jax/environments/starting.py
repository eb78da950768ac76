"""From `config.environment` to a place where tasks are played."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from regrpo_jax.config.fields import amounts_of
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.toolset import ToolsetSettings
from regrpo_jax.workers.settings import RaySettings


def start_environment(
    chosen: ConfigDict,
    loader: str,
    settings: ToolsetSettings | None = None,
    *,
    max_steps: int,
    hidden: Sequence[str] = (),
    workers: ConfigDict | None = None,
) -> Environment:
    """An environment with the tools of a loader, to be closed by the caller.

    chosen: `config.environment`. settings: of the tools. max_steps: turns of an episode. hidden: as in
    `SandboxSettings`. workers: `config.workers`, which says where they are; None for here. UserError, SandboxError as
    `Environment.start`.
    """
    sandbox = SandboxSettings(
        workers=chosen.workers,
        wall_seconds=chosen.wall_seconds,
        allow_unisolated=chosen.allow_unisolated,
        python_path=(os.getcwd(),) if settings is not None and (settings.user_tools or settings.world) else (),
        hidden=tuple(hidden),
    )
    limits, ray = EpisodeLimits(max_steps=max_steps), None if workers is None else ray_settings(workers)
    return Environment.start(sandbox, settings, limits, loader=loader, ray=ray)


def ray_settings(workers: ConfigDict) -> RaySettings | None:
    """Of `config.workers`; None for processes of this machine."""
    if workers.backend == "local":
        return None
    return RaySettings(
        address=workers.address,
        cpus=workers.cpus,
        memory_gib=workers.memory_gib,
        resources=amounts_of(workers.resources),
        folder=workers.folder,
        start_seconds=workers.start_seconds,
    )
