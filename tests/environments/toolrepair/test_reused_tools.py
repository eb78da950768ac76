"""One process of stateless tools serves many episodes: what they see is what a process for each would have shown."""

from __future__ import annotations

from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import BASELINES, LOADERS, make_suite
from tests.environments.toolrepair.fresh_tools import LOADER as FRESH


def test_reused_tools_show_what_fresh_ones_show() -> None:
    tasks = make_suite("test", 54, 5, "compact", surprises=0.5)
    found = []
    for loader in (LOADERS["compact"], FRESH):
        with Environment.start(SandboxSettings(workers=1), loader=loader) as environment:
            agents = (BASELINES["oracle"], BASELINES["oracle"])
            found.append([run_episodes(environment, tasks, agent) for agent in agents])
    assert found[0] == found[1] and found[0][0] == found[0][1]
    assert all(result.success for result in found[0][0])
