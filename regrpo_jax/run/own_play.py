"""Stages that measure, in a run of several processes: the first one plays or replays, with its own devices alone.

What computes over all devices has to be called by all processes at once, and nobody knows beforehand when an episode
needs its next turn. So a process that plays has a policy of its own: the copy of the weights that lies on its devices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from regrpo_jax.errors import UserError
from regrpo_jax.hosts.agreement import meet
from regrpo_jax.hosts.role import role
from regrpo_jax.models.process_arrays import own_copy
from regrpo_jax.rollouts.players import player_of
from regrpo_jax.run.learner import Learner
from regrpo_jax.run.run import Run
from regrpo_jax.run.stage import Stage
from regrpo_jax.training.parallel import own_mesh, own_mesh_in_context


def check_processes() -> None:
    """Raises UserError where jax sees other processes that this run does not know of, as on a slice of TPU hosts."""
    if jax.process_count() != role().count:
        raise UserError(
            f"config.hosts.kind is 'one', and jax sees {jax.process_count()} processes; choose 'detect', and start the "
            "same command on every host"
        )


def check_play(config: ConfigDict, stages: Mapping[str, Stage], mesh: Mesh) -> None:
    """Raises UserError where a process plays, or measures, and no copy of the weights is whole on its devices."""
    if role().alone or own_mesh(mesh) is not None:
        return
    online = config.online.algorithm != "none" and not config.online.replay and not config.player.server
    for name, stage in stages.items():
        if not stage.batch or (name == "online" and online):
            raise UserError(
                f"config.mesh.fsdp={config.mesh.fsdp} times config.mesh.model={config.mesh.model} splits the weights "
                f"over the devices of several processes, and the stage {name!r} plays or measures in each with what its"
                f" own {jax.local_device_count()} devices hold; choose a product that divides this number, or leave "
                "the stage to a run of one process"
            )


def run_stage(run: Run, name: str, stage: Stage) -> None:
    """Runs a stage: one that trains in all processes, one that measures in the first."""
    if role().alone or stage.batch:
        stage.run(run)
        return
    if role().writes:
        if isinstance(run.played, Learner):
            with own_mesh_in_context(run.learner.context.mesh):
                stage.run(run.with_learner(_on_own_devices(run.learner)))
        else:
            stage.run(run)
    meet(f"the stage {name}")


def _on_own_devices(learner: Learner) -> Learner:
    mesh = own_mesh(learner.context.mesh)
    assert mesh is not None  # `check_play`
    context = dataclasses.replace(learner.context, mesh=mesh)
    return dataclasses.replace(
        learner,
        context=context,
        variables=own_copy(learner.variables, mesh),
        player=player_of(context, learner.reader),
    )
