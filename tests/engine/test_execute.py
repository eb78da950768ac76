"""Near misses are really run: what works after all, stays silent or is not repaired never becomes a failure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regrpo_jax.engine.cases import CleanStep, NearMiss, Situation
from regrpo_jax.engine.execute import Refused, play_clean, play_failure
from regrpo_jax.engine.suite_source import SuiteSource, clean_steps, own_failures, situation_of
from regrpo_jax.environments.environment import Environment
from regrpo_jax.records.types import ErrorType, Status
from regrpo_jax.suites.toolrepair import LOADERS, families, make_task, plan_of
from regrpo_jax.suites.toolrepair.suite import ToolRepair

LOADER = LOADERS["compact"]


def situation(family: str, *, surprises: float = 0.0, difficulty: int = 1, seed: int = 0) -> Situation:
    return situation_of(
        make_task(family, "train", seed, difficulty, surprises=surprises), ToolRepair().tools, brief=True
    )


def miss(code: str, kind: ErrorType = ErrorType.ARG_INVALID) -> NearMiss:
    return NearMiss(kind, "test", "do it.", code)


@pytest.mark.parametrize("family", families("compact"))
def test_every_surprise_of_the_suite_fails_and_is_repaired(compact_environment: Environment, family: str) -> None:
    played = 0
    for seed in range(3):
        at = situation(family, surprises=1.0, seed=seed, difficulty=3)
        for index, attempt in enumerate(plan_of(at.task).attempts):
            for own in own_failures(attempt):
                failure = play_failure(compact_environment, replace(at, index=index), own)
                assert failure.failed.status in (Status.TOOL_ERROR, Status.EMPTY)
                assert failure.repaired.status == Status.OK
                assert failure.answered
                assert own.hint is not None and own.hint.evidence in failure.failed.text
                assert len(failure.observations) == len(clean_steps(at.task)) + 1
                played += 1
    assert played


@pytest.mark.parametrize("family", families("compact"))
def test_the_clean_trajectory_solves_its_task(compact_environment: Environment, family: str) -> None:
    at = situation(family, seed=5)
    assert len(play_clean(compact_environment, at)) == len(at.steps)


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("{right}", "near_miss_succeeds"),
        ("value = {right}\nvalue", "near_miss_succeeds"),
        ('"17"', "near_miss_is_silent"),
        ('final_answer("no")', "near_miss_ends"),
    ],
)
def test_what_is_no_failure_is_refused(compact_environment: Environment, code: str, rule: str) -> None:
    at = situation("moved")
    with pytest.raises(Refused, match=rule):
        play_failure(compact_environment, at, miss(code.replace("{right}", at.step.code)))


def test_a_correction_that_fails_is_no_repair(compact_environment: Environment) -> None:
    at = situation("moved")
    broken = (CleanStep("open it.", 'read("nowhere")'), *at.steps[1:])
    with pytest.raises(Refused, match="repair_fails"):
        play_failure(compact_environment, replace(at, steps=broken), miss('read("elsewhere")'))
    with pytest.raises(Refused, match="clean_step_fails"):
        play_clean(compact_environment, replace(at, steps=broken))


def test_a_trajectory_that_ends_with_a_wrong_answer_verifies_nothing(compact_environment: Environment) -> None:
    at = situation("moved")
    wrong = (*at.steps[:-1], CleanStep("that is the answer.", 'final_answer("0")'))
    with pytest.raises(Refused, match="repair_unverified"):
        play_failure(compact_environment, replace(at, steps=wrong), miss('read("elsewhere")'))


def test_an_answer_that_no_tool_gave_verifies_nothing(compact_environment: Environment) -> None:
    at = situation("moved", surprises=1.0)
    # Another note is read, and the right answer comes out of the blue.
    other = next(name for name in ("a", "b") if name not in at.task.instruction)
    steps = (CleanStep("look.", f'"{other}"'), at.steps[-1])
    with pytest.raises(Refused, match="answer_unseen"):
        play_failure(compact_environment, replace(at, steps=steps), miss('read("elsewhere")'))


def test_non_commit_is_an_answer_left_open_and_no_error(compact_environment: Environment) -> None:
    at = situation("moved")
    last = replace(at, index=len(at.steps) - 1)
    answer = plan_of(at.task).answer
    failure = play_failure(compact_environment, last, miss(f'"{answer}"', ErrorType.NON_COMMIT))
    assert failure.failed.status == Status.OK and failure.failed.text == answer
    with pytest.raises(Refused, match="non_commit_fails"):
        play_failure(compact_environment, last, miss("answer(", ErrorType.NON_COMMIT))


def test_the_source_gives_the_same_situation_for_the_same_number() -> None:
    source = SuiteSource("compact", "train", (1, 2, 3), natural=0.5, seed=3)
    for kind in (None, *ErrorType):
        for number in range(12):
            assert source.situation(kind, number) == source.situation(kind, number)
    tasks = [source.situation(ErrorType.ARG_INVALID, number)[0].task.id for number in range(60)]  # type: ignore[index]
    assert len(set(tasks)) == len(tasks)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_natural_is_the_share_of_the_suites_own_surprises(share: float) -> None:
    source = SuiteSource("compact", "train", (1, 2, 3), natural=share, seed=3)
    for number in range(20):
        found = source.situation(ErrorType.TOOL_MISMATCH, number)
        assert found is not None
        assert bool(found[0].own) == bool(share)
