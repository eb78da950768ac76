"""The world: which environment, and which actions."""

from lift_environment import LiftAction, LiftEnvironment

from regrpo_jax.toolbox.openenv_world import OpenEnvWorld


class Lift(OpenEnvWorld):
    """See the environment."""

    environment, action = LiftEnvironment, LiftAction
