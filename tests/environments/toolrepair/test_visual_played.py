"""Visual families in the sandbox: every status is OK, the pictures arrive, and who does not look gets no further."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeResult
from regrpo_jax.environments.recovery import statuses, to_json
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import (
    BASELINES,
    LOADERS,
    evidence_span,
    make_suite,
    plan_of,
    told_with_pictures,
    visual_families,
)

TASKS = 18  # each family at each difficulty twice


@pytest.fixture(scope="module", params=["compact", "full"])
def played_in(request: pytest.FixtureRequest) -> Iterator[tuple[str, Environment]]:
    settings = SandboxSettings(workers=1, spares=0, wall_seconds=60)
    with Environment.start(settings, loader=LOADERS[request.param]) as made:
        yield request.param, made


def visual_suite(split: str, profile: str, surprises: float) -> list[Task]:
    return make_suite(split, TASKS, 7, profile, surprises=surprises, chosen=visual_families(profile))


def check_oracle(result: EpisodeResult) -> None:
    """Solved with no failing status; the failed step's picture shows the evidence, and the repair's does not."""
    task = result.task
    assert result.success and len(result.steps) == len(task.oracle), (task.id, result.outcome, result.steps[-1:])
    assert set(statuses(result)) == {Status.OK}
    for number, (step, scripted) in enumerate(zip(result.steps[:-1], task.oracle, strict=False)):
        seen = step.observation
        assert seen is not None and seen.images == (seen.text.strip(),)  # it says where the picture is, and no more
        assert plan_of(task).answer not in seen.text
        pictures = {name: result.images[number, name] for name in seen.images}
        told = told_with_pictures(seen.text, pictures)
        repair = plan_of(task).attempts[0].repair
        assert repair is None or (repair.evidence in told) == scripted.fails
        if scripted.fails:
            assert repair is not None
            start, end = evidence_span(repair, told)
            assert told[start:end] == repair.evidence == task.oracle[number + 1].reflection.evidence  # type: ignore[union-attr]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_oracle_solves_what_it_sees(played_in: tuple[str, Environment], split: str) -> None:
    profile, environment = played_in
    tasks = visual_suite(split, profile, 0.7)
    first = run_episodes(environment, tasks, BASELINES["oracle"])
    for result in first:
        check_oracle(result)
    assert sum(len(result.steps) == 3 for result in first) >= TASKS // 2
    second = run_episodes(environment, tasks[:6], BASELINES["oracle"])
    assert [to_json(result) | {"seconds": 0} for result in first[:6]] == [
        to_json(result) | {"seconds": 0} for result in second
    ]
    assert [result.images for result in first[:6]] == [result.images for result in second]


def test_who_never_repairs_solves_what_has_no_surprise(played_in: tuple[str, Environment]) -> None:
    profile, environment = played_in
    for result in run_episodes(environment, visual_suite("test", profile, 0.5), BASELINES["never_repairs"]):
        assert result.success == (result.task.error_type is None)
    for result in run_episodes(environment, visual_suite("test", profile, 0.5), BASELINES["random"]):
        assert not result.success
